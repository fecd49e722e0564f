//! `text/csv`: a row of names, then rows of numbers (RFC 4180, without line breaks inside of fields).
//!
//! Names are those of JSON columns, in any case. A field is a number or a time, in quotes or not; an empty one is not a
//! number. The other fields of a request stand in the query, as `request=` and JSON.

use sluice_wire::event::parse_time;

use crate::bounds::{COLUMNS_MAX, HEADER_BYTES_MAX};
use crate::data::Series;
use crate::encode;
use crate::error::Refusal;
use crate::scan;

/// Reads a body.
pub(crate) fn read(body: &[u8], rows_max: usize) -> Result<Series, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::Shape("the body is not UTF-8".to_owned()))?;
    // What spreadsheets begin a file with.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    if head.len() > HEADER_BYTES_MAX {
        return Err(Refusal::TooMuch(format!("a header of more than {HEADER_BYTES_MAX} bytes")));
    }
    let names = names(head)?;
    let mut columns = vec![Vec::new(); names.len()];
    // An empty line is no row: the last one of most files.
    for (row, line) in lines.filter(|line| !line.is_empty()).enumerate() {
        if row == rows_max {
            return Err(Refusal::TooMuch(format!("more rows than the limit of {rows_max}")));
        }
        read_row(line, row, &names, &mut columns)?;
    }
    let mut series = Series::default();
    for (name, values) in names.iter().zip(columns) {
        if let Some(column) = series.column(name) {
            *column = values;
        }
    }
    Ok(series)
}

fn names(head: &str) -> Result<Vec<&str>, Refusal> {
    let names: Vec<&str> = head.split(',').map(|name| unquoted(name).unwrap_or(name).trim()).collect();
    if names.len() > COLUMNS_MAX {
        return Err(Refusal::TooMuch(format!("more than {COLUMNS_MAX} columns")));
    }
    for (at, name) in names.iter().enumerate() {
        if names[..at].iter().any(|before| Series::is_same_column(before, name)) {
            return Err(Refusal::Shape(format!("column `{}` is there twice", name.escape_default())));
        }
    }
    Ok(names)
}

fn read_row(line: &str, row: usize, names: &[&str], columns: &mut [Vec<f64>]) -> Result<(), Refusal> {
    let fault = |text: String| Refusal::Series { row: Some(row), text: format!("row {row}: {text}") };
    let mut count = 0;
    for field in line.split(',') {
        if let (Some(column), Some(name)) = (columns.get_mut(count), names.get(count))
            && Series::is_column(name)
        {
            let value = number(field)
                .ok_or_else(|| fault(format!("{} is neither a number nor a time", name.escape_default())))?;
            column.push(value);
        }
        count += 1;
    }
    if count == names.len() {
        return Ok(());
    }
    Err(fault(format!("{count} values where {} columns are named", names.len())))
}

fn unquoted(field: &str) -> Option<&str> {
    field.strip_prefix('"')?.strip_suffix('"')
}

fn number(field: &str) -> Option<f64> {
    let field = field.trim_matches([' ', '\t']);
    let field = unquoted(field).unwrap_or(field);
    if field.is_empty() {
        return Some(f64::NAN);
    }
    let loose = || field.parse().ok();
    let time = || parse_time(field).map(|time| time.as_millisecond() as f64);
    scan::number(field).or_else(loose).or_else(time)
}

/// Writes columns of one length as rows; what is not a number is an empty field.
pub(crate) fn write(mut out: Vec<u8>, names: &[String], columns: &[Vec<f64>], rows: usize) -> Vec<u8> {
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        field(&mut out, name);
    }
    out.extend_from_slice(b"\r\n");
    for row in 0..rows {
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match column.get(row) {
                Some(value) if value.is_finite() => encode::number(&mut out, *value),
                _ => {}
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A text of the first row, in quotes where it must be.
fn field(out: &mut Vec<u8>, text: &str) {
    if text.contains(['"', ',', '\n', '\r']) {
        let quoted = format!("\"{}\"", text.replace('"', "\"\""));
        out.extend_from_slice(quoted.as_bytes());
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_numbers_times_and_gaps_are_read() {
        let text = "\u{feff}Date,Open,\"High\",low,CLOSE,note,Volume\r\n2024-01-01T00:00:00Z,1,3.5,\"0.5\",2,x,\r\n\r\n1704067260000,2,4,1e0,3,,7\n";
        let series = read(text.as_bytes(), 2).unwrap();
        assert_eq!(series.time_ms.unwrap(), [1_704_067_200_000.0, 1_704_067_260_000.0]);
        assert_eq!((series.close, series.low.unwrap()), (vec![2.0, 3.0], vec![0.5, 1.0]));
        let volume = series.volume.unwrap();
        assert!(volume[0].is_nan() && volume[1] == 7.0);
    }

    #[test]
    fn faults_name_their_row() {
        let row = |text: &str| match read(text.as_bytes(), 2) {
            Err(Refusal::Series { row, .. }) => row,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(row("close\n1\nx\n"), Some(1));
        assert_eq!(row("close,open\n1\n"), Some(0));
        assert_eq!(row("close\n1\n2,3\n"), Some(1));
        assert!(matches!(read(b"close\n1\n2\n3\n", 2), Err(Refusal::TooMuch(_))));
        assert!(matches!(read(b"close,Close\n1,2\n", 2), Err(Refusal::Shape(_))));
        assert!(matches!(read(b"close\n\xff\n", 2), Err(Refusal::Shape(_))));
        assert!(matches!(read(&[b','; 64], 2), Err(Refusal::TooMuch(_))));
    }

    #[test]
    fn rows_are_written_with_empty_fields() {
        let names = ["row".to_owned(), "a,b.value".to_owned()];
        let text = write(Vec::new(), &names, &[vec![0.0, 1.0], vec![f64::NAN, 0.1]], 2);
        assert_eq!(String::from_utf8(text).unwrap(), "row,\"a,b.value\"\r\n0.0,\r\n1.0,0.1\r\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_with_the_same_bits(bits in prop::collection::vec(any::<u64>(), 1..20)) {
            let values: Vec<f64> = bits.iter().map(|bits| f64::from_bits(*bits)).collect();
            let text = write(Vec::new(), &["t".to_owned(), "close".to_owned()], &[(0..20).map(f64::from).collect(), values.clone()], values.len());
            let series = read(&text, 20).unwrap();
            for (found, value) in series.close.iter().zip(values) {
                prop_assert!(found.to_bits() == value.to_bits() || (found.is_nan() && !value.is_finite()));
            }
        }

        #[test]
        fn no_body_makes_it_panic(text in "(close|open|t|,|\n|\r|\"|[0-9.e-]{1,5}| ){0,40}") {
            let _any_outcome = read(text.as_bytes(), 5).is_ok();
        }
    }
}
