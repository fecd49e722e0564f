//! Writing answers: columns of numbers as JSON, straight into one buffer.

use serde_json::Value;

/// Appends a JSON string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

/// Appends a number; what is not finite becomes null.
pub(crate) fn number(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("writing a number to memory does not fail");
}

/// Appends `null` × `skipped`, then the values: an array as long as the data.
pub(crate) fn column(out: &mut Vec<u8>, skipped: usize, values: &[f64]) {
    out.push(b'[');
    for at in 0..skipped + values.len() {
        if at > 0 {
            out.push(b',');
        }
        match at.checked_sub(skipped).and_then(|at| values.get(at)) {
            Some(value) => number(out, *value),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b']');
}

/// Appends `"name":`, with a comma before it unless it is the first.
pub(crate) fn key(out: &mut Vec<u8>, first: &mut bool, name: &str) {
    if !std::mem::take(first) {
        out.push(b',');
    }
    text(out, name);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_and_never_hold_what_json_cannot() {
        let mut out = Vec::new();
        column(&mut out, 2, &[1.5, f64::NAN, f64::INFINITY, -0.1]);
        assert_eq!(String::from_utf8(out).unwrap(), "[null,null,1.5,null,null,-0.1]");
        let mut out = Vec::new();
        column(&mut out, 0, &[]);
        assert_eq!(out, b"[]");
    }
}
