//! What importing a global would mean to whoever loads the file in Python.
//!
//! Source of the names that run code: the lists that the pickle scanners publish (picklescan `_unsafe_globals`, modelscan
//! `unsafe_globals`), and the modules of CPython's library that start programs, open files or connections, or unpickle. A list of bad names is never complete: what is on none of the lists is
//! [`Verdict::Opaque`], not harmless.

use crate::pickle::Known;

/// What a global is to whoever would load the file with `pickle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// One whose meaning is fixed: it builds tensors, containers or numbers and does nothing else.
    Known,
    /// An unknown class or function. Its module would be imported, and it may be called.
    Opaque,
    /// Known to run code, to touch the system, to unpickle other bytes, or to reach other objects by name.
    Dangerous,
}

impl Verdict {
    /// Judges a global by its names.
    ///
    /// ```
    /// use pt_format::Verdict;
    /// assert_eq!(Verdict::of("torch._utils", "_rebuild_tensor_v2"), Verdict::Known);
    /// assert_eq!(Verdict::of("my.package", "Model"), Verdict::Opaque);
    /// assert_eq!(Verdict::of("posix", "system"), Verdict::Dangerous);
    /// // Protocol 4 walks from attribute to attribute.
    /// assert_eq!(Verdict::of("torch.serialization", "os.system"), Verdict::Dangerous);
    /// ```
    pub fn of(module: &str, name: &str) -> Self {
        if is_dangerous(module, name) {
            return Self::Dangerous;
        }
        // A dotted name is a walk to who knows where, whatever its last step is called.
        let is_known = Known::of(module.as_bytes(), name.as_bytes()) != Known::Other && !name.contains('.');
        match is_known || is_plain(module, name) {
            true => Self::Known,
            false => Self::Opaque,
        }
    }
}

/// Globals that only make values, beside those whose values we read ourselves.
fn is_plain(module: &str, name: &str) -> bool {
    match module {
        "builtins" => matches!(name, "bool" | "dict" | "float" | "int" | "list" | "object" | "str" | "tuple"),
        "collections" => matches!(name, "Counter" | "deque"),
        _ => false,
    }
}

fn is_dangerous(module: &str, name: &str) -> bool {
    if is_listed(module, name) {
        return true;
    }
    if name.bytes().filter(|&byte| byte == b'.').count() > DOTS_MAX {
        return true;
    }
    // A dotted name walks from attribute to attribute, and so into submodules (`torch`, `hub.load`).
    let mut dots = name.match_indices('.').map(|(at, _)| at);
    if dots.clone().any(|at| is_listed(&format!("{module}.{}", &name[..at]), &name[at + 1..])) {
        return true;
    }
    // Through a module that happens to import another (`torch.serialization`, `os.system`), the other's names are
    // within reach; often it is imported under a name with underscores (`tempfile._os`).
    let last = dots.next_back().map_or(0, |at| at + 1);
    let walks_through = |segment: &str| MODULES.contains(&segment.trim_matches('_'));
    let ends_in = |segment: &str| CORE.contains(&segment.trim_matches('_'));
    let calls = |segment: &str| CALLS.contains(&segment) || is_dunder(segment);
    name[..last].split('.').any(walks_through)
        || ends_in(&name[last..])
        || name.split('.').any(calls)
        || last > 0 && DOORS.contains(&module)
}

/// Looks at the two lists by module.
fn is_listed(module: &str, name: &str) -> bool {
    // A module is imported with all its parents.
    let mut parents = module.match_indices('.').map(|(at, _)| &module[..at]).chain([module]);
    let first = name.split('.').next().unwrap_or(name);
    parents.any(|parent| MODULES.contains(&parent))
        || FUNCTIONS.iter().any(|(of, names)| *of == module && names.contains(&first))
}

/// `__globals__`, `__class__`, `__subclasses__`, …: the ways from any object to all others.
fn is_dunder(segment: &str) -> bool {
    segment.len() > 4 && segment.starts_with("__") && segment.ends_with("__")
}

/// Classes in classes in classes; no honest name has more, and each is looked at.
const DOTS_MAX: usize = 8;

/// Modules nothing of which belongs in a checkpoint.
#[rustfmt::skip]
const MODULES: &[&str] = &[
    // The system, and programs.
    "os", "posix", "nt", "posixpath", "ntpath", "sys", "subprocess", "_posixsubprocess", "commands", "popen2", "pty", "platform",
    "shutil", "signal", "atexit", "fcntl", "mmap", "resource", "syslog", "winreg", "_winreg", "_winapi", "msvcrt",
    "multiprocessing", "billiard", "concurrent", "threading", "_thread", "thread", "asyncio", "asyncore", "sched", "gc",
    // Files.
    "tempfile", "fileinput", "glob", "linecache", "zipfile", "tarfile", "gzip", "bz2", "lzma", "dbm", "anydbm", "whichdb", "sqlite3", "_sqlite3",
    // Connections.
    "socket", "_socket", "ssl", "_ssl", "socketserver", "SocketServer", "BaseHTTPServer", "CGIHTTPServer",
    "SimpleHTTPServer", "select", "selectors", "http", "httplib", "urllib",
    "urllib2", "urllib3", "requests", "aiohttp", "httpx", "ftplib", "smtplib", "smtpd", "telnetlib", "poplib", "imaplib",
    "nntplib", "xmlrpc", "xmlrpclib", "webbrowser", "antigravity", "paramiko", "fsspec",
    // Imports, and code as data.
    "importlib", "_frozen_importlib", "_frozen_importlib_external", "imp", "_imp", "pkgutil", "zipimport", "runpy", "ihooks",
    "modulefinder", "site", "code", "codeop", "marshal", "ast", "dis", "inspect", "new", "ctypes", "_ctypes", "cffi",
    "_cffi_backend", "cython", "numba.core.serialize",
    // Tools that run what they are given.
    "pip", "ensurepip", "venv", "distutils", "setuptools", "_distutils_hack", "pdb", "bdb", "cProfile", "profile", "_lsprof",
    "timeit", "trace", "doctest", "unittest", "test", "pydoc", "idlelib", "lib2to3", "turtle", "tkinter", "_tkinter", "Tkinter", "IPython",
    "ipykernel", "pytest", "nose",
    // Pickles in pickles, and their kin.
    "pickle", "_pickle", "cPickle", "pickletools", "_compat_pickle", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib",
    "yaml", "_yaml", "ruamel",
    // Parts of numpy and torch that evaluate text, compile, load or start processes.
    "numpy.f2py", "numpy.testing", "numpy.distutils", "numpy.ctypeslib", "numpy.lib.npyio", "numpy.lib._npyio_impl",
    "torch.hub", "torch.ops", "torch._ops", "torch.package", "torch.multiprocessing", "torch.utils.cpp_extension",
    "torch.utils.collect_env", "torch.utils.bottleneck", "torch.utils._config_module", "torch.distributed.rpc",
    "torch.distributed.elastic", "torch.distributed.launcher", "torch.distributed.run", "torch._inductor", "torch._dynamo",
    "torch.jit.unsupported_tensor_ops",
];

/// The modules of these that other modules usually have among their names.
#[rustfmt::skip]
const CORE: &[&str] = &[
    "os", "posix", "nt", "sys", "subprocess", "builtins", "importlib", "ctypes", "socket", "shutil", "pickle", "cPickle",
    "marshal", "runpy", "pty", "multiprocessing", "threading", "tempfile", "urllib", "webbrowser", "platform",
];

/// Single names, with all below them, in modules that have honest uses.
#[rustfmt::skip]
const FUNCTIONS: &[(&str, &[&str])] = &[
    ("builtins", BUILTINS),
    ("__builtin__", BUILTINS),
    ("__builtins__", BUILTINS),
    // They take an attribute or an item by a name that is data, and so hide what is used.
    ("operator", OPERATORS),
    ("_operator", OPERATORS),
    ("io", &["open", "open_code", "FileIO"]),
    ("_io", &["open", "open_code", "FileIO"]),
    ("_pyio", &["open", "open_code", "FileIO"]),
    ("codecs", &["open"]),
    ("copyreg", &["add_extension", "pickle"]),
    ("copy_reg", &["add_extension", "pickle"]),
    ("logging.config", &["dictConfig", "fileConfig", "listen"]),
    ("logging", &["FileHandler"]),
    ("weakref", &["finalize"]),
    ("types", &["FunctionType", "LambdaType", "CodeType", "MethodType", "ModuleType"]),
    ("numpy", &["load", "save", "savez", "fromfile", "memmap", "DataSource", "loadtxt", "genfromtxt", "savetxt"]),
    ("pandas", PANDAS),
    ("pandas.io.pickle", PANDAS),
    ("pandas.core.computation.eval", &["eval"]),
    ("numexpr", &["evaluate", "re_evaluate"]),
    ("torch", &["load", "save", "compile"]),
    ("torch.serialization", &["load", "save", "_load", "_legacy_load"]),
    // Honest old files have it: it is `torch.load` without `weights_only` on bytes that no list of globals shows.
    ("torch.storage", &["_load_from_bytes"]),
    ("torch.jit", &["load", "save"]),
    ("torch.jit._serialization", &["load", "save"]),
    ("torch.classes", &["load_library"]),
    ("torch.fx.graph_module", &["reduce_graph_module", "reduce_package_graph_module", "reduce_deploy_graph_module", "_exec_with_source", "_forward_from_src"]),
    ("torch.fx.experimental.symbolic_shapes", &["ShapeEnv"]),
    ("torch.utils.data.datapipes.utils.decoder", &["basichandlers"]),
    ("torch.utils.data.datapipes.datapipe", &["_IterDataPipeSerializationWrapper", "_MapDataPipeSerializationWrapper"]),
    ("tensorflow.keras.models", &["load_model"]),
    ("keras.models", &["load_model"]),
];

#[rustfmt::skip]
const BUILTINS: &[&str] = &[
    "eval", "exec", "execfile", "compile", "open", "file", "apply", "input", "raw_input", "breakpoint", "reload", "help",
    "exit", "quit", "getattr", "setattr", "delattr", "globals", "locals", "vars",
];
const OPERATORS: &[&str] = &["attrgetter", "itemgetter", "methodcaller", "call"];
const PANDAS: &[&str] = &["read_pickle", "to_pickle", "eval"];

/// Functions known by their name wherever they were imported to.
#[rustfmt::skip]
const CALLS: &[&str] = &[
    "system", "popen", "Popen", "check_call", "check_output", "getoutput", "getstatusoutput", "execv", "execve", "execl",
    "execlp", "execvp", "spawnl", "spawnv", "posix_spawn", "eval", "exec", "execfile", "import_module", "run_module",
    "run_path", "runstring", "load_library", "execWrapper", "attrgetter", "methodcaller",
];

/// Harmless as classes, but not all their methods.
const DOORS: &[&str] = &["pathlib", "pathlib._local", "io", "_io"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globals_are_judged_by_both_names() {
        use Verdict::{Dangerous, Known, Opaque};
        for (module, name, verdict) in [
            ("torch._utils", "_rebuild_tensor_v2", Known),
            ("torch", "FloatStorage", Known),
            ("collections", "OrderedDict", Known),
            ("builtins", "int", Known),
            ("numpy.core.multiarray", "_reconstruct", Known),
            ("torch.nn.modules.linear", "Linear", Opaque),
            ("functools", "partial", Opaque),
            ("pathlib", "PosixPath", Opaque),
            ("builtins", "print", Opaque),
            ("ossified", "Thing", Opaque),
            ("mypackage.os", "Thing", Opaque),
            ("__main__", "Net", Opaque),
            ("os", "system", Dangerous),
            ("os.path", "join", Dangerous),
            ("builtins", "eval", Dangerous),
            ("builtins", "__import__", Dangerous),
            ("__builtin__", "getattr", Dangerous),
            ("torch.storage", "_load_from_bytes", Dangerous),
            ("torch.serialization", "os.system", Dangerous),
            ("torch.serialization", "os", Dangerous),
            ("tempfile_like", "_os.unlink", Dangerous),
            ("collections", "OrderedDict.__init__.__globals__", Dangerous),
            ("torch", "serialization.load.FloatTensor", Dangerous),
            ("torch", "x.y.FloatTensor", Opaque),
            ("types", "SimpleNamespace", Opaque),
            ("fastai.data.load", "_FakeLoader", Opaque),
            ("aaa", "requests.get", Dangerous),
            ("torch", "hub.load", Dangerous),
            ("pathlib", "Path.unlink", Dangerous),
            ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", Dangerous),
        ] {
            assert_eq!(Verdict::of(module, name), verdict, "{module} {name}");
        }
    }
}
