//! Compiled code, kept between runs. Nothing is loaded from here that this installation did not write itself: each
//! file carries a keyed hash, and the key never leaves the directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use super::compile::Compiled;

/// A directory of compiled components that only this user may write.
pub(super) struct Cache {
    dir: PathBuf,
    key: [u8; KEY],
}

const KEY: usize = 32;
const TAG: usize = 32;

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Cache {
    /// Opens or makes the directory, for this user alone.
    ///
    /// # Errors
    /// If it cannot be used; all there is to lose is time.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        private_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), key: key(dir)? })
    }

    /// The name under which the code of a component is kept: it changes with the component, and with the version
    /// and setup of the compiler, both of which are in its compatibility hash.
    pub(super) fn name(engine: &Engine, digest: &str) -> String {
        let mut setup = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut setup);
        let of = format!("{digest} {:016x}", setup.finish());
        format!("{}.cwasm", hex(&Sha256::digest(of)))
    }

    /// Whether something is kept as `name`, whoever wrote it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.dir.join(name).exists()
    }

    /// The code kept as `name`. `None` if there is none, or if this installation did not write it.
    pub(super) fn get(&self, name: &str) -> Option<Compiled> {
        let mut code = fs::read(self.dir.join(name)).ok()?;
        let tag = code.split_off(code.len().checked_sub(TAG)?);
        let ours = self.mac(name, &code).verify_slice(&tag).is_ok();
        if !ours {
            tracing::debug!(name, "compiled code in the cache was changed, compiling again");
        }
        ours.then_some(Compiled(code))
    }

    /// Keeps `code` as `name`. A failure is only a warning. Nobody waits until it is durable: what a power cut leaves of it
    /// is told by the hash, and made again.
    pub(super) fn put(&self, name: &str, code: &[u8]) {
        let tag = self.mac(name, code).finalize().into_bytes();
        let written = replace(&self.dir, name, &[code, &tag]);
        if let Err(e) = written {
            tracing::warn!(dir = %self.dir.display(), error = %e, "compiled code could not be kept");
        }
    }

    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(name.as_bytes());
        mac.update(code);
        mac
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = fs::metadata(dir)?;
    private(&meta, 0o022, "the directory")
}

fn private(meta: &fs::Metadata, forbidden: u32, what: &str) -> io::Result<()> {
    if meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & forbidden == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{what} belongs to another user, or its mode {:o} lets others in",
        meta.mode() & 0o777
    )))
}

/// The directory's key, made at random by whoever comes first.
fn key(dir: &Path) -> io::Result<[u8; KEY]> {
    let path = dir.join("key");
    if !path.try_exists()? {
        make_key(dir, &path)?;
    }
    private(&fs::metadata(&path)?, 0o077, "the key")?;
    fs::read(&path)?.try_into().map_err(|_| io::Error::other("the key has the wrong length"))
}

fn make_key(dir: &Path, path: &Path) -> io::Result<()> {
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
    let temporary = temporary(dir)?;
    write_private(&temporary, &[&key])?;
    File::open(&temporary)?.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked.or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
}

fn replace(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = temporary(dir)?;
    let done = write_private(&temporary, parts).and_then(|()| fs::rename(&temporary, dir.join(name)));
    done.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

fn temporary(dir: &Path) -> io::Result<PathBuf> {
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(dir.join(format!("{}.tmp", hex(&name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("new/cache")).unwrap();
        assert_eq!(cache.get("a"), None);
        cache.put("a", b"code");
        cache.put("a", b"newer");
        let again = Cache::open(&dir.path().join("new/cache")).unwrap();
        assert_eq!(again.get("a"), Some(Compiled(b"newer".to_vec())));
        let mode = |name: &str| fs::metadata(dir.path().join("new/cache").join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("."), mode("key"), mode("a")), (0o700, 0o600, 0o600));
    }

    #[test]
    fn a_changed_or_moved_or_foreign_file_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("one")).unwrap();
        cache.put("a", b"code");
        let file = fs::read(cache.dir.join("a")).unwrap();
        for i in 0..file.len() {
            let mut flipped = file.clone();
            flipped[i] ^= 1;
            fs::write(cache.dir.join("a"), flipped).unwrap();
            assert_eq!(cache.get("a"), None, "byte {i}");
        }
        fs::write(cache.dir.join("b"), &file).unwrap();
        assert_eq!(cache.get("b"), None);
        fs::write(cache.dir.join("a"), b"short").unwrap();
        assert_eq!(cache.get("a"), None);
        let other = Cache::open(&dir.path().join("two")).unwrap();
        fs::write(other.dir.join("a"), &file).unwrap();
        assert_eq!(other.get("a"), None);
    }

    #[test]
    fn a_directory_or_key_that_others_can_reach_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        fs::set_permissions(cache.dir.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Cache::open(dir.path()).is_err());
        fs::remove_file(cache.dir.join("key")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Cache::open(dir.path()).is_err());
    }

    #[test]
    fn a_place_that_cannot_be_a_directory_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        assert!(Cache::open(&dir.path().join("file/below")).is_err());
    }
}
