//! Why a file is not a transform, told to whoever built it. What the compiler says is translated here, never
//! shown alone.

use super::bindings::INTERFACE;
use super::engine::Imports;

/// The file cannot be a transform. [`LoadError::hint`] says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// More than [`super::MAX_COMPONENT_BYTES`].
    #[error("the file has {bytes} bytes, more than the {limit} that a transform may have")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// Something else altogether.
    #[error("this is {found}, not a WebAssembly component")]
    NotWasm {
        /// What it looks like.
        found: &'static str,
    },
    /// Machine code that somebody compiled before.
    #[error("precompiled code is not accepted: it would run outside the sandbox")]
    Precompiled,
    /// WebAssembly without the component around it.
    #[error("this is a core WebAssembly module, not a component")]
    CoreModule,
    /// A component in a format of another time.
    #[error("the component is in binary format {found}, which this version does not read")]
    Format {
        /// The version and layer in its header.
        found: String,
    },
    /// It ends in the middle.
    #[error("the component is cut off after {bytes} bytes: {text}")]
    Truncated {
        /// What there is.
        bytes: usize,
        /// What the compiler said.
        text: String,
    },
    /// It uses something that transforms may not use.
    #[error("the component uses {feature}, which transforms may not use: {text}")]
    Feature {
        /// By the name of the proposal.
        feature: &'static str,
        /// What the compiler said.
        text: String,
    },
    /// It wants more memory, or larger tables, from the start than any instance gets.
    #[error("the component wants more than any transform may have: {text}")]
    TooDemanding {
        /// What the compiler said.
        text: String,
    },
    /// It is made of more than any compiler should have to look at.
    #[error("the component has {n} {what}, more than the {limit} that a transform may have")]
    TooComplex {
        /// Of what.
        what: &'static str,
        /// What it has.
        n: u64,
        /// What it may have.
        limit: u64,
    },
    /// Compiling it took more than compiling may take.
    #[error("compiling the component took more than {what}")]
    CompileLimit {
        /// Of what, and how much.
        what: &'static str,
    },
    /// It is not valid.
    #[error("the component is not valid: {text}")]
    Invalid {
        /// What the compiler said.
        text: String,
    },
    /// The compiler gave up on it.
    #[error("the compiler failed on this component: {text}")]
    Compiler {
        /// What it said.
        text: String,
    },
    /// It wants something from outside that it may not have.
    #[error("the component imports `{interface}`, which a transform may not use")]
    Import {
        /// Name and version.
        interface: String,
        /// What to do.
        hint: &'static str,
    },
    /// It imports something of WASI in a form that WASI 0.2 does not have.
    #[error("the component imports `{interface}` in a form that this version does not know: {text}")]
    ImportForm {
        /// Name and version.
        interface: String,
        /// What the linker said.
        text: String,
    },
    /// It does not export the contract, or another version of it.
    #[error("the component does not export `{INTERFACE}`; it exports {found}")]
    NoTransform {
        /// What it exports instead.
        found: String,
    },
    /// It exports the contract with other functions or types.
    #[error("the component's `{INTERFACE}` is not that of the contract: {text}")]
    Signature {
        /// Which function, and where the types part.
        text: String,
    },
}

/// What a compiler took that was killed: nobody can tell which of the two it was.
pub(super) const KILLED: &str = "60 s of processor time, or the system had no memory left for it";

impl LoadError {
    /// Whether the same component would end in the same way the next time.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::CompileLimit { what } => *what != KILLED,
            Self::Compiler { .. } => false,
            _ => true,
        }
    }

    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => "build the transform again; the build may have failed",
            Self::TooLarge { .. } => {
                "strip it, or pass large tables through `init` instead of embedding them"
            }
            Self::NotWasm { .. } | Self::Precompiled => "give the .wasm file that the build made, as it is",
            Self::CoreModule => {
                "in Rust build with `--target wasm32-wasip2`; elsewhere make a component of it with `wasm-tools \
                 component new`"
            }
            Self::Format { .. } => "build it with current tools: binary format 0x1000d is understood",
            Self::Truncated { .. } => "copy the file again, all of it",
            Self::Feature { .. } => "switch the feature off in the compiler that built it",
            Self::TooComplex { .. } | Self::CompileLimit { .. } => {
                "build it with less in it: no generated tables as code, no function of thousands of lines, optimised"
            }
            Self::TooDemanding { .. } => {
                "raise `sandbox.memory_limit`, or build it with a smaller memory and stack"
            }
            Self::Invalid { .. } => "build it again; check it with `wasm-tools validate`",
            Self::Compiler { .. } => "this is a fault of the runtime: please report it, with the file",
            Self::Import { hint, .. } => hint,
            Self::ImportForm { .. } => "build it against a released WASI 0.2",
            Self::NoTransform { .. } | Self::Signature { .. } => {
                "build it against wit/transform.wit of this version, for the world `transform-component`"
            }
        }
    }

    pub(super) fn import(interface: &str, allowed: Imports) -> Self {
        let hint = match interface {
            _ if allowed == Imports::None => {
                "`sandbox.imports = \"none\"` refuses all imports: build it without WASI"
            }
            _ if interface.starts_with("wasi:http") => {
                "build with `--disable http --disable fetch-event` (JavaScript), or leave the HTTP client out"
            }
            _ if interface.starts_with("wasi:") => "build it for WASI 0.2: other versions are not answered",
            _ => "a transform gets all it knows through `init` and `process`: leave the import out",
        };
        Self::Import { interface: shown(interface, 200), hint }
    }

    pub(super) fn link(interface: &str, error: &wasmtime::Error) -> Self {
        Self::ImportForm { interface: shown(interface, 200), text: one_line(error) }
    }

    /// What the linker's words mean: it names the interface between backquotes.
    pub(super) fn unlinked(error: &wasmtime::Error) -> Self {
        let text = one_line(error);
        let interface = text.split('`').nth(1).unwrap_or_default().to_owned();
        Self::ImportForm { interface, text }
    }

    /// What the compiler's words mean. `bytes` have the header of a component.
    pub(super) fn compile(text: &str, bytes: &[u8]) -> Self {
        let text = text.to_owned();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if let Some((_, feature)) = FEATURES.iter().find(|(words, _)| says(&[words])) {
            return Self::Feature { feature, text };
        }
        if says(&["pooling allocator", "exceeds the limit", "memory minimum size"]) {
            return Self::TooDemanding { text };
        }
        if says(&["unexpected end-of-file", "unexpected end", "out of bounds (bound ="]) {
            return Self::Truncated { bytes: bytes.len(), text };
        }
        Self::Invalid { text }
    }
}

/// From the compiler's words to a feature's name.
const FEATURES: &[(&str, &str)] = &[
    ("threads must be enabled", "threads"),
    ("threads support is not enabled", "threads"),
    ("shared memor", "threads"),
    ("memory64", "64-bit memories"),
    ("exceptions", "exceptions"),
    ("relaxed SIMD", "relaxed SIMD"),
    ("relaxed-simd", "relaxed SIMD"),
    ("gc types", "garbage collection"),
    ("gc feature", "garbage collection"),
    ("gc proposal", "garbage collection"),
    ("gc is not enabled", "garbage collection"),
    ("wide arithmetic", "wide arithmetic"),
    ("async", "asynchronous component functions"),
    ("stack switching", "stack switching"),
    ("tail calls", "tail calls"),
];

/// The whole chain on one line, without what a guest's names can put into it.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    shown(&text.split_whitespace().collect::<Vec<_>>().join(" "), 600)
}

/// At most so many characters of what a component says, safe to print.
pub(super) fn shown(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => super::log::escape(&text[..end]) + " (cut)",
        None => super::log::escape(text),
    }
}
