//! Copying whole directories, both ways.
//!
//! Only files and directories are copied; what else there is (links, sockets, devices) is passed over,
//! as it would mean something else on the other side.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::files::{FileError, Files};

/// What a file may be allowed on the other side.
const MODE: u32 = 0o777;

impl Files {
    /// Copies a file, or a directory with all below it, to the guest. Directories that lead there are made.
    ///
    /// `progress` hears how many bytes have gone. What had been copied when this fails stays.
    pub async fn upload_tree(
        &self,
        source: &Path,
        target: &str,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, FileError> {
        let local = |path: &Path| {
            let path = path.display().to_string();
            move |source| FileError::Local { path, what: "read", source }
        };
        let mut count = 0;
        let mut left = vec![(source.to_owned(), target.trim_end_matches('/').to_owned())];
        while let Some((from, to)) = left.pop() {
            let metadata = tokio::fs::metadata(&from).await.map_err(local(&from))?;
            if metadata.is_dir() {
                self.make_directories(&to).await?;
                let mut entries = tokio::fs::read_dir(&from).await.map_err(local(&from))?;
                while let Some(entry) = entries.next_entry().await.map_err(local(&from))? {
                    let kind = entry.file_type().await.map_err(local(&from))?;
                    if kind.is_dir() || kind.is_file() {
                        let name = entry.file_name().to_string_lossy().into_owned();
                        left.push((entry.path(), format!("{to}/{name}")));
                    }
                }
            } else {
                if let Some((directory, _)) = to.rsplit_once('/').filter(|(d, _)| !d.is_empty()) {
                    self.make_directories(directory).await?;
                }
                let mode = metadata.permissions().mode() & MODE;
                let before = count;
                count += self.upload(&from, &to, mode, |sent| progress(before + sent)).await?;
            }
        }
        Ok(count)
    }

    /// Copies a file, or a directory with all below it, from the guest. The directory that `target` is in
    /// must be there.
    ///
    /// `progress` hears how many bytes have come. What had been copied when this fails stays.
    pub async fn download_tree(
        &self,
        source: &str,
        target: &Path,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, FileError> {
        let mut count = 0;
        let mut left: Vec<(String, PathBuf)> =
            vec![(source.trim_end_matches('/').to_owned(), target.to_owned())];
        while let Some((from, to)) = left.pop() {
            let Some(entries) = self.entries(&from).await? else {
                let before = count;
                count += self.download(&from, &to, |got| progress(before + got)).await?;
                continue;
            };
            let made = tokio::fs::create_dir_all(&to).await;
            made.map_err(|source| FileError::Local {
                path: to.display().to_string(),
                what: "made",
                source,
            })?;
            left.extend(entries.into_iter().map(|name| (format!("{from}/{name}"), to.join(name))));
        }
        Ok(count)
    }
}
