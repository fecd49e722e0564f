//! `application/vnd.apache.arrow.stream`: Arrow's IPC stream, as pyarrow and polars write and read it.
//!
//! Columns have the names that JSON columns have; the other fields of a request stand in the schema's metadata under
//! `sluice.request`, as JSON. Numbers of any width and times of any unit are taken; a null is not a number. An answer has
//! the columns `ID.OUTPUT` and in its schema's metadata `sluice.answer` with `count`, `lookback` and the like. Compressed
//! buffers are refused: unpacking would need bounds of its own.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use serde_json::{Map, Value as Json};
use sluice_wire::json;

use crate::bounds::{COLUMNS_MAX, HEADER_BYTES_MAX};
use crate::data::Series;
use crate::error::Refusal;

/// Metadata of a request's schema with the other fields of the request.
const REQUEST: &str = "sluice.request";
/// Metadata of an answer's schema with what stands beside the columns.
const ANSWER: &str = "sluice.answer";
const MS_A_DAY: f64 = 86_400_000.0;

/// Reads a body: the other fields of the request, and the series.
pub(crate) fn read(body: Bytes, rows_max: usize) -> Result<(Map<String, Json>, Series), Refusal> {
    // The library checks what it reads; should it stumble over a hostile stream all the same, that costs one refusal.
    let read = catch_unwind(AssertUnwindSafe(|| batches(body, rows_max)));
    read.unwrap_or_else(|_| Err(Refusal::Shape("the body is no Arrow stream".to_owned())))
}

fn batches(body: Bytes, rows_max: usize) -> Result<(Map<String, Json>, Series), Refusal> {
    let mut buffer = Buffer::from(body);
    let mut decoder = StreamDecoder::new();
    let mut series = Series::default();
    let mut rows = 0;
    while let Some(batch) = decoder.decode(&mut buffer).map_err(broken)? {
        rows += batch.num_rows();
        if rows > rows_max {
            return Err(Refusal::TooMuch(format!("more rows than the limit of {rows_max}")));
        }
        take(&batch, &mut series)?;
    }
    decoder.finish().map_err(broken)?;
    let schema = decoder.schema().ok_or_else(|| Refusal::Shape("the body has no Arrow schema".to_owned()))?;
    let request = match schema.metadata().get(REQUEST) {
        Some(text) if text.len() > HEADER_BYTES_MAX => {
            return Err(Refusal::TooMuch(format!("{REQUEST} of more than {HEADER_BYTES_MAX} bytes")));
        }
        Some(text) => json::from_slice(text.as_bytes())?,
        None => Map::new(),
    };
    Ok((request, series))
}

fn broken(error: ArrowError) -> Refusal {
    let text: String = error.to_string().chars().take(200).collect();
    Refusal::Shape(format!("the body is no Arrow stream that is taken here: {text}"))
}

/// Appends a batch to the series.
fn take(batch: &RecordBatch, series: &mut Series) -> Result<(), Refusal> {
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names.len() > COLUMNS_MAX {
        return Err(Refusal::TooMuch(format!("more than {COLUMNS_MAX} columns")));
    }
    for (at, (name, values)) in names.iter().zip(batch.columns()).enumerate() {
        let Some(column) = series.column(name) else { continue };
        if names[..at].iter().any(|before| Series::is_same_column(before, name)) {
            return Err(Refusal::Shape(format!("column `{}` is there twice", name.escape_default())));
        }
        append(values, column).map_err(|kind| {
            let name = name.escape_default();
            Refusal::Shape(format!("column `{name}` is {kind}, which is neither a number nor a time"))
        })?;
    }
    Ok(())
}

/// Appends the values of an array; the name of its type where it is none of numbers.
fn append(values: &ArrayRef, out: &mut Vec<f64>) -> Result<(), String> {
    let kind = values.data_type();
    match kind {
        DataType::Float64 if values.null_count() == 0 => {
            out.extend_from_slice(values.as_primitive::<Float64Type>().values());
        }
        DataType::Float64 => extend::<Float64Type>(values, out, |value| value),
        DataType::Float32 => extend::<Float32Type>(values, out, f64::from),
        DataType::Int8 => extend::<Int8Type>(values, out, f64::from),
        DataType::Int16 => extend::<Int16Type>(values, out, f64::from),
        DataType::Int32 => extend::<Int32Type>(values, out, f64::from),
        DataType::Int64 => extend::<Int64Type>(values, out, |value| value as f64),
        DataType::UInt8 => extend::<UInt8Type>(values, out, f64::from),
        DataType::UInt16 => extend::<UInt16Type>(values, out, f64::from),
        DataType::UInt32 => extend::<UInt32Type>(values, out, f64::from),
        DataType::UInt64 => extend::<UInt64Type>(values, out, |value| value as f64),
        DataType::Date32 => extend::<Date32Type>(values, out, |days| f64::from(days) * MS_A_DAY),
        DataType::Date64 => extend::<Date64Type>(values, out, |ms| ms as f64),
        DataType::Timestamp(TimeUnit::Second, _) => {
            extend::<TimestampSecondType>(values, out, |time| time as f64 * 1e3);
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            extend::<TimestampMillisecondType>(values, out, |time| time as f64);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            extend::<TimestampMicrosecondType>(values, out, |time| time as f64 / 1e3);
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            extend::<TimestampNanosecondType>(values, out, |time| time as f64 / 1e6);
        }
        other => return Err(other.to_string().chars().take(64).collect()),
    }
    Ok(())
}

fn extend<T: ArrowPrimitiveType>(values: &ArrayRef, out: &mut Vec<f64>, wide: impl Fn(T::Native) -> f64) {
    out.extend(values.as_primitive::<T>().iter().map(|value| value.map_or(f64::NAN, &wide)));
}

/// Writes columns of one length as a stream of one batch.
pub(crate) fn write(
    out: Vec<u8>,
    times: Option<&[f64]>,
    names: Vec<String>,
    columns: Vec<Vec<f64>>,
    about: &Map<String, Json>,
) -> Result<Vec<u8>, Refusal> {
    let mut fields = Vec::with_capacity(names.len() + 1);
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(names.len() + 1);
    if let Some(times) = times {
        fields.push(Field::new("timestamp", DataType::Int64, false));
        arrays.push(Arc::new(times.iter().map(|time| *time as i64).collect::<Int64Array>()));
    }
    for (name, column) in names.into_iter().zip(columns) {
        fields.push(Field::new(name, DataType::Float64, false));
        arrays.push(Arc::new(Float64Array::from(column)));
    }
    let metadata: HashMap<String, String> =
        [(ANSWER.to_owned(), Json::from(about.clone()).to_string())].into();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let written = || -> Result<Vec<u8>, ArrowError> {
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
        let mut writer = StreamWriter::try_new(out, &schema)?;
        writer.write(&batch)?;
        writer.finish()?;
        writer.into_inner()
    };
    written().map_err(|error| Refusal::Shape(format!("the answer cannot be an Arrow stream: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Float32Array, StringArray, TimestampNanosecondArray, UInt8Array};
    use proptest::prelude::*;

    fn stream(columns: Vec<(&str, ArrayRef)>, request: Option<&str>) -> Bytes {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let metadata: HashMap<String, String> =
            request.map(|text| (REQUEST.to_owned(), text.to_owned())).into_iter().collect();
        let schema = Arc::new(batch.schema().as_ref().clone().with_metadata(metadata));
        let batch = batch.with_schema(Arc::clone(&schema)).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch.slice(0, 0)).unwrap();
        writer.into_inner().unwrap().into()
    }

    #[test]
    fn numbers_of_any_width_and_nulls_are_taken() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("Time", Arc::new(TimestampNanosecondArray::from(vec![1_000_000, 2_000_000]))),
            ("open", Arc::new(Float32Array::from(vec![0.5, 1.5]))),
            ("Close", Arc::new(Float64Array::from(vec![Some(0.1), None]))),
            ("volume", Arc::new(UInt8Array::from(vec![7, 255]))),
            ("note", Arc::new(StringArray::from(vec!["x", "y"]))),
        ];
        let (request, series) = read(stream(columns, Some(r#"{"symbol":"X"}"#)), 2).unwrap();
        assert_eq!(request["symbol"], "X");
        assert_eq!(series.time_ms.unwrap(), [1.0, 2.0]);
        assert_eq!((series.open.unwrap(), series.volume.unwrap()), (vec![0.5, 1.5], vec![7.0, 255.0]));
        assert!(series.close[0] == 0.1 && series.close[1].is_nan());
    }

    #[test]
    fn streams_that_cannot_be_are_refused() {
        let close = || -> ArrayRef { Arc::new(Float64Array::from(vec![1.0, 2.0])) };
        let text: ArrayRef = Arc::new(StringArray::from(vec!["1", "2"]));
        assert!(matches!(read(stream(vec![("close", close())], None), 1), Err(Refusal::TooMuch(_))));
        assert!(
            matches!(read(stream(vec![("close", text)], None), 9), Err(Refusal::Shape(said)) if said.contains("Utf8"))
        );
        let twice = stream(vec![("close", close()), ("c", close())], None);
        assert!(matches!(read(twice, 9), Err(Refusal::Shape(said)) if said.contains("twice")));
        assert!(matches!(read(stream(vec![("close", close())], Some("{")), 9), Err(Refusal::Json(_))));
        for body in [
            b"".as_slice(),
            b"no arrow at all, but long enough",
            b"\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\xff\xff\xff\xff",
        ] {
            assert!(matches!(read(Bytes::from_static(body), 9), Err(Refusal::Shape(_))), "{body:?}");
        }
        let whole = stream(vec![("close", close())], None);
        assert!(matches!(read(whole.slice(..whole.len() - 60), 9), Err(Refusal::Shape(_))));
    }

    #[test]
    fn what_is_written_can_be_read_with_the_same_bits() {
        let values = vec![f64::NAN, -0.0, 5e-324, f64::MAX];
        let names = vec!["close".to_owned()];
        let out =
            write(Vec::new(), Some(&[1.0, 2.0, 3.0, 4.0]), names, vec![values.clone()], &Map::new()).unwrap();
        let (_, series) = read(out.into(), 4).unwrap();
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&series.close), bits(&values));
        assert_eq!(series.time_ms.unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_body_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let close: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
            let mut body = stream(vec![("close", close)], Some("{}")).to_vec();
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let _any_outcome = read(body.into(), 100).is_ok();
        }
    }
}
