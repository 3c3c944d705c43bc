//! What a component may be made of, looked up before anything is compiled. It counts and never validates: what it cannot
//! read is for the compiler to explain.

use wasmparser::{BinaryReaderError, Parser, Payload};

use super::load_error::LoadError;

/// Functions of all modules together. The Python interpreter has some 30,000.
const MAX_FUNCTIONS: u64 = 200_000;
/// Local variables of one function, for each of which a compiler keeps books at every branch.
const MAX_LOCALS: u64 = 10_000;
/// Linear memories of all modules together.
const MAX_MEMORIES: u64 = 64;
/// Imports of the component and of everything in it. Interpreters are made of many modules that import one another.
const MAX_IMPORTS: u64 = 50_000;
/// Components in components, and modules in those.
const MAX_DEPTH: u64 = 32;

/// Counts what `bytes` has.
///
/// # Errors
/// [`LoadError::TooComplex`], [`LoadError::TooDemanding`].
pub(super) fn check(bytes: &[u8], max_memory_bytes: usize) -> Result<(), LoadError> {
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(Ok(())) = payload.map(|payload| counts.take(&payload)) else { break };
        counts.judge(max_memory_bytes)?;
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    functions: u64,
    locals: u64,
    memories: u64,
    memory_bytes: u64,
    imports: u64,
    depth: u64,
}

impl Counts {
    fn take(&mut self, payload: &Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => self.depth += 1,
            Payload::End(_) => self.depth = self.depth.saturating_sub(1),
            Payload::ImportSection(section) => self.imports += u64::from(section.count()),
            Payload::ComponentImportSection(section) => self.imports += u64::from(section.count()),
            Payload::FunctionSection(section) => self.functions += u64::from(section.count()),
            Payload::MemorySection(section) => {
                self.memories += u64::from(section.count());
                for memory in section.clone() {
                    let memory = memory?;
                    let page = 1_u64 << memory.page_size_log2.unwrap_or(16).min(16);
                    self.memory_bytes = self.memory_bytes.max(memory.initial.saturating_mul(page));
                }
            }
            Payload::CodeSectionEntry(body) => {
                self.locals = 0;
                for group in body.get_locals_reader()? {
                    self.locals += u64::from(group?.0);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(&self, max_memory_bytes: usize) -> Result<(), LoadError> {
        for (what, n, limit) in [
            ("functions", self.functions, MAX_FUNCTIONS),
            ("local variables in one function", self.locals, MAX_LOCALS),
            ("memories", self.memories, MAX_MEMORIES),
            ("imports", self.imports, MAX_IMPORTS),
            ("levels of components in components", self.depth, MAX_DEPTH),
        ] {
            if n > limit {
                return Err(LoadError::TooComplex { what, n, limit });
            }
        }
        if self.memory_bytes > max_memory_bytes as u64 {
            let text =
                format!("a memory of {} bytes from the start, of {max_memory_bytes}", self.memory_bytes);
            return Err(LoadError::TooDemanding { text });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        check(&wat::parse_str(text).unwrap(), 1 << 20).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_usual_passes() {
        checked("(component (core module (memory 16) (func (local i32 i64))))").unwrap();
    }

    #[test]
    fn too_much_of_anything_is_refused_by_name() {
        for (text, expected) in [
            (
                format!("(component (core module (func {})))", "(local i32)".repeat(10_001)),
                "10001 local variables in one function, more than the 10000",
            ),
            (format!("(component (core module {}))", "(memory 0)".repeat(65)), "65 memories"),
            (
                format!("{}{}", "(component ".repeat(40), ")".repeat(40)),
                "33 levels of components in components",
            ),
            ("(component (core module (memory 17)))".to_owned(), "a memory of 1114112 bytes from the start"),
        ] {
            let refused = checked(&text).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn what_it_cannot_read_is_left_to_the_compiler() {
        let good = wat::parse_str("(component (core module (memory 16) (func (local i32 i64))))").unwrap();
        for end in 0..good.len() {
            check(&good[..end], 1 << 20).unwrap();
        }
    }
}
