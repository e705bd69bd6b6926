//! How many files caches keep open, all together: a share of the descriptors and maps that the process may have.

#[cfg(target_os = "linux")]
use std::sync::LazyLock;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As many files as are kept open at most, unless the caller asks for more.
const FILES_MAX: usize = 1024;
/// What is left of the process's file descriptors for others: of four, three. The same for maps, of eight, seven.
const DESCRIPTORS_SHARE: usize = 4;
#[cfg(target_os = "linux")]
const MAPS_SHARE: usize = 8;
/// What a cache may keep in any case, also where others have taken the rest.
const FILES_MIN: usize = 4;

/// What caches have claimed. Each gives back what it has when it goes.
static CLAIMED: AtomicUsize = AtomicUsize::new(0);

/// The files that one cache may keep open. Claimed when it is first asked: a cache that opens no file claims none.
#[derive(Debug, Default)]
pub(crate) struct Share {
    claimed: OnceLock<usize>,
}

impl Share {
    /// Claims room for all of so many files, or for none if there is not enough; returns whether there is.
    pub(crate) fn claim_all(&self, files: usize) -> bool {
        if let Some(&claimed) = self.claimed.get() {
            return files <= claimed;
        }
        let claimed = claim(|left| if files <= left { files } else { 0 });
        if claimed == files && self.claimed.set(claimed).is_err() {
            // Another thread was faster.
            CLAIMED.fetch_sub(claimed, Ordering::Relaxed);
        }
        claimed == files
    }

    /// Claims room for so many files, or for what is left.
    pub(crate) fn claim_some(&self, files: usize) -> usize {
        let claimed = *self.claimed.get_or_init(|| claim(|left| files.min(left)));
        claimed.max(files.min(FILES_MIN)).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        CLAIMED.fetch_sub(self.claimed.get().copied().unwrap_or(0), Ordering::Relaxed);
    }
}

/// Claims what `wanted` says of what is left.
fn claim(wanted: impl Fn(usize) -> usize) -> usize {
    let all = descriptors_max() / DESCRIPTORS_SHARE;
    let all = all.min(maps_max()).clamp(1, FILES_MAX);
    let mut claimed = CLAIMED.load(Ordering::Relaxed);
    loop {
        let files = wanted(all.saturating_sub(claimed));
        let sum = claimed + files;
        match CLAIMED.compare_exchange_weak(claimed, sum, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return files,
            Err(other) => claimed = other,
        }
    }
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
        limit.map_or(usize::MAX, |limit| limit / MAPS_SHARE)
    });
    *MAPS_MAX
}

#[cfg(not(target_os = "linux"))]
fn maps_max() -> usize {
    usize::MAX
}
