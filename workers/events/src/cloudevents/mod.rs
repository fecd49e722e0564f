//! CloudEvents 1.0 over HTTP: read in the binary, structured and batched mode, told as structured ones.
//!
//! | CloudEvents | here |
//! |---|---|
//! | `type` | `event_type` |
//! | `source` | `source`, by the same rules |
//! | `id` | `event_id`: itself when it is a UUID, else a UUID made of `source` and `id`; the text is kept |
//! | `time` | `timestamp` |
//! | `data`, a JSON object | `data` |
//! | any other data | `data` with one member: `data` (JSON, text) or `data_base64` |
//! | `subject`, `datacontenttype`, `dataschema`, extensions | kept in `metadata.cloudevent` |
//! | extension `sluicemetadata` | the rest of `metadata`, as JSON text |
//! | extensions `sluicemessageid`, `sluiceseq`, `sluicepartition` | the place in the stream; ignored on the way in |

mod incoming;
mod outgoing;
mod post;

pub(crate) use incoming::Foreign;
pub(crate) use outgoing::write;
pub(crate) use post::posted;

/// Media type of one event in the structured mode.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of a batch.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
/// Where what has no other place is kept in an event's metadata.
const KEPT: &str = "cloudevent";
/// Extension that holds the metadata.
const METADATA: &str = "sluicemetadata";
/// What the names of this worker's own extensions begin with.
const OWN: &str = "sluice";

/// Attributes of the specification; every other name is an extension's.
const CORE: [&str; 9] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data"];

/// Whether a name may be an extension's.
fn is_extension(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && !CORE.contains(&name)
}

/// Whether a media type says that its content is JSON.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}
