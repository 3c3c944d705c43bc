//! From the bytes of a file to a [`Transform`]: looked at, compiled or taken from the cache, linked. No code of
//! the guest runs here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower};

use super::bindings::{INTERFACE, TransformComponentPre, wit};
use super::cache::Cache;
use super::child;
use super::engine::{self, Sandbox, Use};
use super::load_error::{LoadError, one_line, shown};
use super::precheck;
use super::transform::Transform;
use super::wasi::{self, Host, Import};
use crate::digest;

/// The largest component that is accepted, in bytes.
pub const MAX_COMPONENT_BYTES: usize = 32 << 20;

/// Compiles a component into a cache, unless it is there, for whoever [loads](Sandbox::load) it next: for the time before it is
/// known what else a sandbox needs. `compiler` is that of [`super::SandboxOptions`]. Without a cache that can be used, nothing is done.
///
/// # Errors
/// Those of [`Sandbox::load`] for what nobody could load. That something is not among them says little.
pub fn compile_ahead(cache_dir: &Path, compiler: Option<&Path>, bytes: &[u8]) -> Result<(), LoadError> {
    look_at(bytes)?;
    // How much memory a sandbox will have is not known yet.
    precheck::check(bytes, usize::MAX)?;
    let (Ok(cache), Ok(engine)) = (Cache::open(cache_dir), engine::compiler(Use::Work)) else {
        return Ok(());
    };
    let name = Cache::name(&engine, &digest::of(bytes));
    if !cache.has(&name) {
        cache.put(&name, &compile(compiler, &engine, Use::Work, bytes)?.0);
    }
    Ok(())
}

impl Sandbox {
    /// Makes a transform of the bytes of a component.
    ///
    /// The component may import nothing but WASI 0.2, see [`super::wasi`], and exports the contract in version
    /// 0.1. Its code comes from the cache if this installation compiled it before.
    ///
    /// # Errors
    /// Each says what is wrong with the file; [`LoadError::hint`] what to do.
    pub fn load(&self, bytes: &[u8]) -> Result<Transform, LoadError> {
        look_at(bytes)?;
        precheck::check(bytes, self.shared.options.max_memory_bytes)?;
        let digest = digest::of(bytes);
        let (imports, pre) = self.link(bytes, &digest, Use::Work)?;
        Ok(Transform::new(self.clone(), digest.into(), imports, pre, bytes.into()))
    }

    /// All but the instance: what it imports, and what instances are made of.
    pub(super) fn link(
        &self,
        bytes: &[u8],
        digest: &str,
        of: Use,
    ) -> Result<(Vec<Import>, TransformComponentPre<Host>), LoadError> {
        let engine = self.engine(of);
        let component = self.component(bytes, digest, of)?;
        let (linker, imports) = wasi::link(engine, &component, self.shared.options.imports)?;
        let transform = exports_transform(engine, &component)?;
        let pre = linker.instantiate_pre(&component).map_err(|e| LoadError::unlinked(&e))?;
        Functions { component: &component, pre: &pre, of: &transform }.check()?;
        let pre = TransformComponentPre::new(pre).map_err(|e| LoadError::Signature { text: one_line(&e) })?;
        Ok((imports, pre))
    }

    fn component(&self, bytes: &[u8], digest: &str, of: Use) -> Result<Component, LoadError> {
        let engine = self.engine(of);
        let compiler = self.shared.options.compiler.as_deref();
        let Some(cache) = &self.shared.cache else {
            return made_here(engine, &compile(compiler, engine, of, bytes)?)
                .map_err(|e| LoadError::compile(&e, bytes));
        };
        let name = Cache::name(engine, digest);
        if let Some(code) = cache.get(&name) {
            match made_here(engine, &code) {
                Ok(component) => return Ok(component),
                Err(e) => tracing::debug!(error = e, "compiling again"),
            }
        }
        let code = compile(compiler, engine, of, bytes)?;
        let component = made_here(engine, &code).map_err(|e| LoadError::compile(&e, bytes))?;
        cache.put(&name, &code.0);
        Ok(component)
    }
}

fn compile(compiler: Option<&Path>, engine: &Engine, of: Use, bytes: &[u8]) -> Result<Compiled, LoadError> {
    match compiler {
        Some(program) => child::compile(program, of, bytes).map(Compiled),
        None => code(engine, bytes).map_err(|e| refused(e, bytes)),
    }
}

/// What [`code`] made, in this process, in a child of it, or in an earlier one of this installation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compiled(pub(super) Vec<u8>);

#[expect(unsafe_code, reason = "nothing else makes a `Compiled`, and the cache vouches for what it kept")]
fn made_here(engine: &Engine, code: &Compiled) -> Result<Component, String> {
    // SAFETY: the bytes were made by `Engine::precompile_component` of this program: just now, or they carry the keyed
    // hash of this installation.
    let component = unsafe { Component::deserialize(engine, &code.0) };
    component.map_err(|e| one_line(&e))
}

/// Refuses what cannot be a component, by its first bytes and its size.
fn look_at(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if bytes.len() > MAX_COMPONENT_BYTES {
        return Err(LoadError::TooLarge { bytes: bytes.len(), limit: MAX_COMPONENT_BYTES });
    }
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0, ..] => Err(LoadError::CoreModule),
        [0, b'a', b's', b'm', v0, v1, l0, l1, ..] => {
            let [version, layer] = [u16::from_le_bytes([*v0, *v1]), u16::from_le_bytes([*l0, *l1])];
            Err(LoadError::Format { found: format!("{:#x}", u32::from(layer) << 16 | u32::from(version)) })
        }
        [0, b'a', b's', b'm', ..] => {
            Err(LoadError::Truncated { bytes: bytes.len(), text: "the header has 8".to_owned() })
        }
        _ => Err(LoadError::NotWasm { found: looks_like(bytes) }),
    }
}

fn looks_like(bytes: &[u8]) -> &'static str {
    let text = || std::str::from_utf8(&bytes[..bytes.len().min(512)]);
    match bytes {
        [0x1f, 0x8b, ..] => "a gzip file",
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file, native code",
        [b'P', b'K', ..] => "a zip file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd file",
        _ if bytes.trim_ascii_start().starts_with(b"(") => "WebAssembly text",
        _ if bytes.trim_ascii_start().starts_with(b"<") => "HTML or XML",
        _ if text().is_ok_and(|t| !t.contains('\0')) => "text",
        _ => "something else",
    }
}

/// Why there is no code.
pub(super) enum Refused {
    /// What the compiler says of the component, on one line.
    Invalid(String),
    /// What it said of itself.
    Panicked(String),
}

pub(super) fn refused(why: Refused, bytes: &[u8]) -> LoadError {
    match why {
        Refused::Invalid(text) => LoadError::compile(&text, bytes),
        Refused::Panicked(text) => LoadError::Compiler { text },
    }
}

/// Compiles. Some invalid or rare components panic in the compiler; that is no reason to take the process down.
pub(super) fn code(engine: &Engine, bytes: &[u8]) -> Result<Compiled, Refused> {
    let compiled = catch_unwind(AssertUnwindSafe(|| engine.precompile_component(bytes)));
    let compiled = compiled.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Refused::Panicked(text.to_owned())
    })?;
    compiled.map(Compiled).map_err(|e| Refused::Invalid(one_line(&e)))
}

/// By name and version: `0.1.x` serves for `0.1.0`.
fn exports_transform(engine: &Engine, component: &Component) -> Result<ComponentExportIndex, LoadError> {
    if let Some(transform) = component.get_export_index(None, INTERFACE) {
        return Ok(transform);
    }
    let names = component.component_type();
    let names: Vec<_> = names
        .exports(engine)
        .filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)))
        .take(8)
        .map(|(name, _)| format!("`{}`", shown(name, 100)))
        .collect();
    let found = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    Err(LoadError::NoTransform { found })
}

/// The functions of the contract in a component. Their types would otherwise be compared when the first instance
/// starts, too late to refuse the file.
struct Functions<'a> {
    component: &'a Component,
    pre: &'a InstancePre<Host>,
    of: &'a ComponentExportIndex,
}

impl Functions<'_> {
    fn check(&self) -> Result<(), LoadError> {
        type Settings<'a> = &'a [(&'a str, &'a str)];
        self.has::<(Settings<'_>,), (Result<wit::Description, String>,)>("describe")?;
        self.has::<(Settings<'_>, &[wit::Table<'_>]), (Result<(), String>,)>("init")?;
        self.has::<(wit::Batch<'_>,), (Result<wit::Output, String>,)>("process")
    }

    fn has<P: ComponentNamedList + Lower, R: ComponentNamedList + Lift>(
        &self,
        name: &str,
    ) -> Result<(), LoadError> {
        let wrong = |text: String| LoadError::Signature { text: format!("`{name}`: {text}") };
        match self.component.get_export(Some(self.of), name) {
            Some((ComponentItem::ComponentFunc(function), _)) => {
                function.typecheck::<P, R>(&self.pre.instance_type()).map_err(|e| wrong(one_line(&e)))
            }
            _ => Err(wrong("there is no such function".to_owned())),
        }
    }
}
