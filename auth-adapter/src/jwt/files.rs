//! The public keys of PEM files, read again when the files change.

use std::path::PathBuf;
use std::sync::Arc;

use shared::drain::Drain;
use shared::reload::POLL;
use shared::tasks::on_a_thread;
use tokio::sync::watch;

use super::key::{self, Key};
use super::keys::Keys;
use super::metrics::JwtMetrics;

/// Reads the files, and follows their changes on `drain`.
///
/// # Errors
/// A file can't be used.
pub(super) fn follow(
    files: Vec<PathBuf>,
    metrics: Arc<JwtMetrics>,
    drain: &Drain,
) -> anyhow::Result<watch::Receiver<Arc<Keys>>> {
    let keys = key::of_pem_files(&files)?;
    metrics.keys_are(keys.len());
    let (sender, receiver) = watch::channel(Arc::new(Keys::Configured(keys)));
    let state = (files, sender, metrics, drain.clone());
    drain.supervise_useful("auth-jwt-keys", state, |(files, sender, metrics, drain)| {
        Box::pin(async move {
            tokio::select! { () = look(files, sender, metrics) => {}, () = drain.begun() => {} }
        })
    });
    Ok(receiver)
}

/// Looks at the files for ever. Files that can't be used are told once, and the old keys stay.
async fn look(files: &[PathBuf], sender: &watch::Sender<Arc<Keys>>, metrics: &JwtMetrics) {
    let (mut told, mut seen) = (false, None::<Vec<Key>>);
    loop {
        tokio::time::sleep(POLL).await;
        let paths = files.to_vec();
        match on_a_thread(move || key::of_pem_files(&paths)).await {
            Ok(keys) => {
                told = false;
                // Only what two looks found the same is believed: a file may be half written.
                if seen.as_ref() == Some(&keys) && **sender.borrow() != Keys::Configured(keys.clone()) {
                    tracing::info!(keys = keys.len(), "the public keys for JWTs were read again");
                    metrics.reloaded("applied");
                    metrics.keys_are(keys.len());
                    sender.send_replace(Arc::new(Keys::Configured(keys.clone())));
                }
                seen = Some(keys);
            }
            Err(error) if !told => {
                told = true;
                metrics.reloaded("refused");
                tracing::error!("auth_adapter.jwt.public_keys: {error:#}; the old keys stay");
            }
            Err(_) => {}
        }
    }
}
