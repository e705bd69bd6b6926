//! How a sample is built: the containers around its tensors and plain scalars.

use pt_index::{Index, Node, NodeKind, Schema};

use crate::dataset::{Options, Unit};
use crate::samples::Samples;

/// The parts of a sample, each container before its content: [`pt_index::Node`]s whose tensors are numbers of
/// [`DataSet::fields`](crate::DataSet::fields), and whose leaves are numbers of [`DataSet::columns`](crate::DataSet::columns).
///
/// Where keys are selected, only those are there, and the containers around them. Batches have the same structure, with all
/// samples in the place of one.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # let x = Tensor::new::<u8>(&[2], &[1, 2])?;
/// # let object = Object::dict([("image", x.into()), ("meta", Object::dict([("id", 7.into())]))]);
/// # std::fs::write(folder.path().join("a.pt"), write::to_vec(&object)?)?;
/// use pt_index::{Key, NodeKind};
/// let data = pt_loader::DataSet::open(folder.path())?;
/// let parts: Vec<_> = data.structure().map(|node| (node.key, node.kind)).collect();
/// assert_eq!(parts, [
///     (None, NodeKind::Dict),
///     (Some(Key::Str("image")), NodeKind::Tensor(0)),
///     (Some(Key::Str("meta")), NodeKind::Dict),
///     (Some(Key::Str("id")), NodeKind::Leaf(0)),
/// ]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Structure<'d> {
    schema: Option<Schema<'d>>,
    parts: std::slice::Iter<'d, Part>,
}

/// A node of the schema that is part of a sample, and its numbers there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    node: usize,
    /// Of fields, columns, or parts.
    target: usize,
    end: usize,
}

impl<'d> Structure<'d> {
    pub(crate) fn new(index: &'d Index, parts: &'d [Part]) -> Self {
        Self { schema: index.schemas().next(), parts: parts.iter() }
    }
}

impl<'d> Iterator for Structure<'d> {
    type Item = Node<'d>;

    fn next(&mut self) -> Option<Node<'d>> {
        let part = self.parts.next()?;
        let mut node = self.schema?.nodes().nth(part.node)?;
        node.end = part.end;
        node.kind = match node.kind {
            NodeKind::Tensor(_) => NodeKind::Tensor(part.target),
            NodeKind::Leaf(_) => NodeKind::Leaf(part.target),
            NodeKind::Same(_) => NodeKind::Same(part.target),
            other => other,
        };
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.parts.size_hint()
    }
}

impl ExactSizeIterator for Structure<'_> {}

/// Finds the parts of a sample among the nodes of the first schema.
pub(crate) fn of(index: &Index, samples: &Samples, options: &Options) -> Vec<Part> {
    let fitting = index.schemas().zip(&samples.schemas).next();
    let Some((schema, plan)) = fitting.filter(|_| options.unit != Unit::Tensor) else { return Vec::new() };
    let Some(file) = schema.files().next() else { return Vec::new() };
    let all = options.keys.is_empty();
    // What a node becomes: the number of its field, column or node; containers and what is opaque need none.
    let target = |kind: NodeKind<'_>, kept: &[Option<usize>]| match kind {
        NodeKind::Tensor(number) => {
            let tensor = file.tensor_at(number)?;
            samples.fields.iter().position(|field| field.name == tensor.name())
        }
        NodeKind::Leaf(number) => plan.columns.get(number).copied().flatten(),
        NodeKind::Same(number) => kept.get(number).copied().flatten(),
        NodeKind::Opaque(_) => all.then_some(0),
        _ => Some(0),
    };
    let nodes: Vec<Node<'_>> = schema.nodes().collect();
    // Backwards: a container stays where something in it does.
    let is_container =
        |kind| matches!(kind, NodeKind::Dict | NodeKind::OrderedDict | NodeKind::List | NodeKind::Tuple);
    let mut stays = vec![0usize; nodes.len() + 1];
    for (number, node) in nodes.iter().enumerate().rev() {
        let has = match node.kind {
            kind if is_container(kind) => {
                all || stays[number + 1] > stays.get(node.end).copied().unwrap_or(0)
            }
            // Decided below; by itself it keeps no container.
            NodeKind::Same(_) => false,
            kind => target(kind, &[]).is_some(),
        };
        stays[number] = stays[number + 1] + usize::from(has);
    }
    let mut kept: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
    let mut parts: Vec<Part> = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let stays = match node.kind {
            NodeKind::Same(_) => true,
            _ => stays[number] > stays[number + 1],
        };
        let target = target(node.kind, &kept).filter(|_| stays);
        kept.push(target.map(|_| parts.len()));
        if let Some(target) = target {
            parts.push(Part { node: number, target, end: node.end });
        }
    }
    // Ends are numbers of nodes still: the first part from there on.
    let places: Vec<usize> = parts.iter().map(|part| part.node).collect();
    for part in &mut parts {
        part.end = places.partition_point(|&node| node < part.end);
    }
    parts
}
