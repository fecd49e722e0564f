//! Columns of Parquet as arrays of Arrow.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, PrimitiveArray, new_null_array};
use arrow_schema::{DataType, TimeUnit};
use parquet::basic::{ConvertedType, LogicalType, TimeUnit as Unit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType as Physical;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescriptor;

/// What a column is in Arrow. What is neither numbers nor times is given the name that says so best.
pub(super) fn kind(column: &ColumnDescriptor) -> DataType {
    if column.max_rep_level() > 0 || column.max_def_level() > 1 {
        return DataType::Binary;
    }
    match (column.physical_type(), column.logical_type_ref(), column.converted_type()) {
        (Type::DOUBLE, ..) => DataType::Float64,
        (Type::FLOAT, ..) => DataType::Float32,
        (Type::INT96, ..) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        (Type::INT32, logical, converted) => small(logical, converted),
        (Type::INT64, logical, converted) => large(logical, converted),
        (Type::BOOLEAN, ..) => DataType::Boolean,
        (Type::BYTE_ARRAY, ..) => DataType::Utf8,
        (Type::FIXED_LEN_BYTE_ARRAY, ..) => DataType::Binary,
    }
}

fn small(logical: Option<&LogicalType>, converted: ConvertedType) -> DataType {
    match (logical, converted) {
        (Some(LogicalType::Date), _) | (None, ConvertedType::DATE) => DataType::Date32,
        (Some(LogicalType::Integer(int)), _) if !int.is_signed => DataType::UInt32,
        (Some(LogicalType::Integer(_)), _) => DataType::Int32,
        (None, ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32) => DataType::UInt32,
        (None, ConvertedType::DECIMAL) | (Some(LogicalType::Decimal(_)), _) => DataType::Decimal128(9, 0),
        (None, ConvertedType::TIME_MILLIS) | (Some(_), _) => DataType::Time32(TimeUnit::Millisecond),
        (None, _) => DataType::Int32,
    }
}

fn large(logical: Option<&LogicalType>, converted: ConvertedType) -> DataType {
    let time = |unit| DataType::Timestamp(unit, None);
    match (logical, converted) {
        (Some(LogicalType::Timestamp(stamp)), _) => match stamp.unit {
            Unit::MILLIS => time(TimeUnit::Millisecond),
            Unit::MICROS => time(TimeUnit::Microsecond),
            Unit::NANOS => time(TimeUnit::Nanosecond),
        },
        (None, ConvertedType::TIMESTAMP_MILLIS) => time(TimeUnit::Millisecond),
        (None, ConvertedType::TIMESTAMP_MICROS) => time(TimeUnit::Microsecond),
        (Some(LogicalType::Integer(int)), _) if !int.is_signed => DataType::UInt64,
        (Some(LogicalType::Integer(_)), _) => DataType::Int64,
        (None, ConvertedType::UINT_64) => DataType::UInt64,
        (None, ConvertedType::DECIMAL) | (Some(LogicalType::Decimal(_)), _) => DataType::Decimal128(18, 0),
        (None, ConvertedType::TIME_MICROS) | (Some(_), _) => DataType::Time64(TimeUnit::Microsecond),
        (None, _) => DataType::Int64,
    }
}

/// Whether a column is read: numbers and times are.
pub(super) const fn is_read(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Float64
            | DataType::Float32
            | DataType::Int32
            | DataType::UInt32
            | DataType::Int64
            | DataType::UInt64
            | DataType::Date32
            | DataType::Timestamp(..)
    )
}

/// The next values of a column, exactly so many; empty fields for one that is not read.
pub(super) fn take(
    reader: Option<&mut ColumnReader>,
    kind: &DataType,
    rows: usize,
) -> Result<ArrayRef, ParquetError> {
    Ok(match (reader, kind) {
        (None, kind) => new_null_array(kind, rows),
        (Some(ColumnReader::DoubleColumnReader(from)), _) => {
            values::<_, Float64Type>(from, rows, |value| value)?
        }
        (Some(ColumnReader::FloatColumnReader(from)), _) => {
            values::<_, Float32Type>(from, rows, |value| value)?
        }
        (Some(ColumnReader::Int32ColumnReader(from)), DataType::Date32) => {
            values::<_, Date32Type>(from, rows, |value| value)?
        }
        (Some(ColumnReader::Int32ColumnReader(from)), DataType::UInt32) => {
            values::<_, UInt32Type>(from, rows, i32::cast_unsigned)?
        }
        (Some(ColumnReader::Int32ColumnReader(from)), _) => {
            values::<_, Int32Type>(from, rows, |value| value)?
        }
        (Some(ColumnReader::Int64ColumnReader(from)), DataType::UInt64) => {
            values::<_, UInt64Type>(from, rows, i64::cast_unsigned)?
        }
        (Some(ColumnReader::Int64ColumnReader(from)), DataType::Timestamp(unit, _)) => match unit {
            TimeUnit::Millisecond => values::<_, TimestampMillisecondType>(from, rows, |value| value)?,
            TimeUnit::Microsecond => values::<_, TimestampMicrosecondType>(from, rows, |value| value)?,
            _ => values::<_, TimestampNanosecondType>(from, rows, |value| value)?,
        },
        (Some(ColumnReader::Int64ColumnReader(from)), _) => {
            values::<_, Int64Type>(from, rows, |value| value)?
        }
        (Some(ColumnReader::Int96ColumnReader(from)), _) => {
            values::<_, TimestampNanosecondType>(from, rows, |value| value.to_nanos())?
        }
        (Some(_), other) => return Err(ParquetError::General(format!("{other} is not read"))),
    })
}

fn values<P: Physical, A: ArrowPrimitiveType>(
    from: &mut ColumnReaderImpl<P>,
    rows: usize,
    value: impl Fn(P::T) -> A::Native,
) -> Result<ArrayRef, ParquetError> {
    let (mut found, mut levels) = (Vec::with_capacity(rows), Vec::new());
    let (records, ..) = from.read_records(rows, Some(&mut levels), None, &mut found)?;
    if records != rows {
        return Err(ParquetError::General(format!("{records} values where its group has {rows} rows more")));
    }
    let mut values = found.into_iter().map(value);
    // A column without empty fields has no levels.
    let array: PrimitiveArray<A> = if levels.is_empty() {
        values.map(Some).collect()
    } else {
        levels.iter().map(|level| if *level > 0 { values.next() } else { None }).collect()
    };
    Ok(Arc::new(array))
}
