"""Meaning of every field of expected.json; a copy is written into that file."""

SCHEMA = {
    "result": "ok: everything listed must be reported; error: the reader must refuse (category says why); "
    "either: refusing or reporting are both fine, but it must end quickly, safely, without executing anything",
    "category": "why an error is expected; advisory only (several reasons can apply to one file)",
    "container": "zip | legacy | tar | pickle | torchscript | torchscript_v1 | package | pt2 | dcp | hf_index | "
    "safetensors | npz | other",
    "files": "size and sha256 of each file of a fixture made of several files (size and file_sha256 otherwise)",
    "checked_against_torch": "number of tensors that torch itself loaded with the same bytes",
    "torch_weights_only": "what torch.load(weights_only=True) did with the file: ok or the exception type "
    "(ok does not mean right!)",
    "weights_only_loads": "whether torch.load(weights_only=True) accepts this valid file",
    "value": "typed tree of the non-tensor data; its own keys (args, state, attrs, items, appended, parts) are not "
    "path components",
    "tensors[].path": "exact path as a list of components: dict keys as str(), list/tuple positions in decimal, "
    "attribute names (also those of a tensor's own Python state); components beginning with # are parts of a "
    "composite tensor; __args__ precedes the position of a constructor argument, __state__ a state that is not a "
    "dict, __dict__ an attribute of a dict object; <key i> is the i-th key of a dict, <item> an element of a set",
    "tensors[].name": "path joined with '.', leaving out _modules/_parameters/_buffers of nn.Module objects",
    "tensors[].storage_offset": "in elements of the tensor's dtype",
    "tensors[].sha256": "over the tensor's elements in row-major order, little-endian, conj/neg bits APPLIED, "
    "quantized = raw integers; null when there is no data or it would be too large",
    "tensors[].sha256_raw": "same but with conj/neg bits NOT applied",
    "tensors[].data_offset": "absolute file offset of element [0,..,0]; null when compressed or not in the file",
    "tensors[].zero_copy": "stored uncompressed, native (little) byte order, and data_offset is a multiple of the "
    "element's alignment (complex: of one half)",
    "tensors[].flags": "view: does not cover its storage record exactly; shared_storage: another tensor uses the same "
    "record (not set in .pt2 archives and in constants); noncontiguous; expanded (a stride is 0); empty; param; conj; "
    "neg; quantized; packed (several elements per byte, no sha256); sparse; nested; wrapper (no data of its own, see "
    "parts); subclass; meta (no data anywhere); numpy (an array or scalar of numpy, not a tensor)",
    "tensors[].storage": "key/class/numel/location as in the persistent id; file_offset and sha256 of the whole "
    "record; key and class are empty where no persistent id names the storage (numpy arrays, lists of numbers); key is "
    "POSITION/KEY for a storage of a torch.save file nested in a pickle; view = [view_key, first element, elements] of "
    "a legacy storage view (storage_offset is then relative to it)",
    "tensors[].alias_of": "first path at which the very same pickled object appeared",
}
