//! For tests: the spans of one thread, as what is made of them for a collector would get them.

use std::fmt::{Debug, Write};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tracing::Dispatch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// A span as its name and its fields, and whether it has ended.
type Seen = Arc<Mutex<Vec<(Id, String, bool)>>>;

/// With one subscriber alone tracing asks only that of the thread which comes to a span first; another test's thread has
/// none, and its "never" would hold for all. With two it asks them all.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Registry::default()));

/// The spans that began on this thread since.
pub(crate) struct Spans {
    seen: Seen,
    _until_dropped: DefaultGuard,
}

impl Spans {
    pub(crate) fn watch() -> Spans {
        LazyLock::force(&SECOND);
        let seen = Seen::default();
        let subscriber = Registry::default().with(Noting(Arc::clone(&seen)));
        Spans { seen, _until_dropped: tracing::subscriber::set_default(subscriber) }
    }

    pub(crate) fn begun(&self, span: &str) -> usize {
        self.seen.lock().iter().filter(|(_, name, _)| name == span).count()
    }

    pub(crate) fn ended(&self, span: &str) -> usize {
        self.seen.lock().iter().filter(|(_, name, ended)| name == span && *ended).count()
    }
}

struct Noting(Seen);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Noting {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut text = Text(attributes.metadata().name().to_owned());
        attributes.record(&mut text);
        self.0.lock().push((id.clone(), text.0, false));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        // An id is used again once its span has ended.
        if let Some((.., ended)) = self.0.lock().iter_mut().find(|(known, _, ended)| *known == id && !ended) {
            *ended = true;
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {}={value}", field.name());
    }
}
