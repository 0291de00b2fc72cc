//! The longer rules of the CRD, in CEL. Each passes all that [`crate::check`] passes.

/// Where the calendar counts: nothing, or after an optional zone a descriptor or five words. Space is what Unicode calls
/// so, as robfig/cron has it.
pub(super) const CRON: &str = concat!(
    "!has(self.schedule) || !has(self.schedule.cron) || (has(self.repeatAfterSec) && self.repeatAfterSec > 0) || ",
    r"self.schedule.cron.matches(r'^[\s\v\pZ\x{85}]*((CRON_TZ|TZ)=[^ ]* [\s\v\pZ\x{85}]*)?",
    r"(@every .+|@(yearly|annually|monthly|weekly|daily|midnight|hourly)",
    r"|[^@\s\v\pZ\x{85}][^\s\v\pZ\x{85}]*([\s\v\pZ\x{85}]+[^\s\v\pZ\x{85}]+){4})?[\s\v\pZ\x{85}]*$')",
);
pub(super) const CRON_MESSAGE: &str =
    "must be five cron fields, a descriptor such as @hourly, or @every 5m, after an optional CRON_TZ=Zone";

/// The beginning of a DNS subdomain; without one the check's name is it.
pub(super) const GENERATE_NAME: &str = concat!(
    "!has(self.resource) || !has(self.generateName) || self.generateName == '' || ",
    r"self.generateName.matches(r'^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*([a-z0-9][-a-z0-9]*)?$')",
);

/// A DNS label.
pub(super) const NAMESPACE: &str = r"self.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";

/// A DNS subdomain, which must be there.
pub(super) const ACCOUNT: &str = concat!(
    "has(self.serviceAccount) && ",
    r"self.serviceAccount.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
);

/// One of the three.
pub(super) const SOURCE: &str = "(has(self.inline) && size(self.inline) > 0) \
     || (has(self.url) && has(self.url.path) && size(self.url.path) > 0) \
     || (has(self.file) && has(self.file.path) && size(self.file.path) > 0)";

/// Where the URL counts.
pub(super) const SOURCE_URL: &str = "(has(self.inline) && size(self.inline) > 0) \
     || !has(self.url) || !has(self.url.path) || size(self.url.path) == 0 || self.url.path.startsWith('https://')";

/// Where the file counts.
pub(super) const SOURCE_FILE: &str = "(has(self.inline) && size(self.inline) > 0) \
     || (has(self.url) && has(self.url.path) && size(self.url.path) > 0) \
     || !has(self.file) || !has(self.file.path) || !self.file.path.matches(r'^/|(^|/)[.][.](/|$)')";
