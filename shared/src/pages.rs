//! Pages that a part shows on the admin port, beside those that every process has.
//!
//! A part registers a page when it starts. A page is JSON for operators, made anew for each request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

/// Makes a page.
type Maker = Arc<dyn Fn() -> Value + Send + Sync>;

/// The pages of a process, by path. Cheap to clone; the parts of one process share them.
#[derive(Clone, Default)]
pub struct Pages {
    /// Locked only for a map operation.
    makers: Arc<RwLock<BTreeMap<&'static str, Maker>>>,
}

impl Pages {
    /// Shows what `make` returns at `GET <path>`. A page of the same path is replaced. `make` must not block.
    pub fn add(&self, path: &'static str, make: impl Fn() -> Value + Send + Sync + 'static) {
        self.makers.write().unwrap_or_else(PoisonError::into_inner).insert(path, Arc::new(make));
    }

    /// Makes the page of a path. `None`: there is none.
    pub fn make(&self, path: &str) -> Option<Value> {
        let make = self.makers.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        Some(make?())
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let makers = self.makers.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(makers.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_made_anew_for_each_request() {
        let (pages, counter) = (Pages::default(), std::sync::atomic::AtomicU64::new(0));
        pages
            .clone()
            .add("/count", move || json!(counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
        assert_eq!([pages.make("/count"), pages.make("/count")], [Some(json!(0)), Some(json!(1))]);
        assert_eq!((pages.make("/"), pages.make("/count/")), (None, None));
        assert_eq!(format!("{pages:?}"), "{\"/count\"}");
    }
}
