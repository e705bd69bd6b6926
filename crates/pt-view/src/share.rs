//! How many files caches keep open or mapped, all together: a share of the descriptors and maps that the process may have.

#[cfg(target_os = "linux")]
use std::sync::LazyLock;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As many files as are kept open at most, unless the caller asks for more.
const FILES_MAX: usize = 1024;
/// What is left of the process's file descriptors for others: of four, three. Of its maps, seven of eight where files are
/// open besides, and half where a map is all that is kept of a file.
const DESCRIPTORS_SHARE: usize = 4;
const MAPS_SHARE: usize = 8;
const MAPS_ALONE_SHARE: usize = 2;
/// What a cache may keep in any case, also where others have taken the rest.
const FILES_MIN: usize = 4;

/// What caches have claimed of open files, and of files that are only mapped. Each gives back what it has when it goes.
static OPEN: AtomicUsize = AtomicUsize::new(0);
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// The files that one cache may keep. Claimed when it is first asked: a cache that opens no file claims none.
#[derive(Debug)]
pub(crate) struct Share {
    open: Claim,
    mapped: Claim,
}

/// What one cache has of what all have together.
#[derive(Debug)]
struct Claim {
    claimed: OnceLock<usize>,
    of: &'static AtomicUsize,
}

impl Default for Share {
    fn default() -> Self {
        let of = |of| Claim { claimed: OnceLock::new(), of };
        Self { open: of(&OPEN), mapped: of(&MAPPED) }
    }
}

impl Share {
    /// Claims room for all of so many open files, or for none if there is not enough; returns whether there is.
    pub(crate) fn claim_all(&self, files: usize) -> bool {
        self.open.all(open_max(), files)
    }

    /// Claims room for so many open files, or for what is left.
    pub(crate) fn claim_some(&self, files: usize) -> usize {
        self.open.some(open_max(), files).max(files.min(FILES_MIN)).max(1)
    }

    /// Claims room for all of so many files that are mapped and not open, or for none; returns whether there is.
    pub(crate) fn claim_all_mapped(&self, files: usize) -> bool {
        self.mapped.all(maps_max() / MAPS_ALONE_SHARE, files)
    }
}

impl Claim {
    fn all(&self, max: usize, files: usize) -> bool {
        if let Some(&claimed) = self.claimed.get() {
            return files <= claimed;
        }
        let claimed = self.take(max, |left| if files <= left { files } else { 0 });
        if claimed == files && self.claimed.set(claimed).is_err() {
            // Another thread was faster.
            self.of.fetch_sub(claimed, Ordering::Relaxed);
        }
        claimed == files
    }

    fn some(&self, max: usize, files: usize) -> usize {
        *self.claimed.get_or_init(|| self.take(max, |left| files.min(left)))
    }

    /// Takes what `wanted` says of what is left of all there is.
    fn take(&self, max: usize, wanted: impl Fn(usize) -> usize) -> usize {
        let mut claimed = self.of.load(Ordering::Relaxed);
        loop {
            let files = wanted(max.saturating_sub(claimed));
            let sum = claimed + files;
            match self.of.compare_exchange_weak(claimed, sum, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return files,
                Err(other) => claimed = other,
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.of.fetch_sub(self.claimed.get().copied().unwrap_or(0), Ordering::Relaxed);
    }
}

/// How many files may be open.
fn open_max() -> usize {
    (descriptors_max() / DESCRIPTORS_SHARE).min(maps_max() / MAPS_SHARE).clamp(1, FILES_MAX)
}

#[cfg(unix)]
fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn descriptors_max() -> usize {
    usize::MAX
}

/// Asked once: the answer does not change while a process runs, and reading it takes longer than opening a file.
#[cfg(target_os = "linux")]
fn maps_max() -> usize {
    static MAPS_MAX: LazyLock<usize> = LazyLock::new(|| {
        let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let limit = limit.ok().and_then(|limit| limit.trim().parse::<usize>().ok());
        limit.unwrap_or(usize::MAX)
    });
    *MAPS_MAX
}

#[cfg(not(target_os = "linux"))]
fn maps_max() -> usize {
    usize::MAX
}
