//! Files as writers make them, and as nobody should.

use std::io::{Seek as _, Write as _};

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, TimestampMillisecondType};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{DataType, TimeUnit};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

const SCHEMA: &str = "message candles {
    required int64 timestamp (TIMESTAMP(MILLIS,true));
    optional double close;
    optional binary venue (UTF8);
}";

/// Groups of so many rows; every seventh close is empty.
fn written(groups: &[usize], compression: Compression, page_rows: usize) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_data_page_row_count_limit(page_rows)
        .set_write_batch_size(page_rows)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut first = 0_i64;
    for rows in groups {
        let range = first..first + *rows as i64;
        first = range.end;
        let mut group = writer.next_row_group().unwrap();
        let times: Vec<i64> = range.clone().collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&times, None, None).unwrap();
        column.close().unwrap();
        let levels: Vec<i16> = range.clone().map(|row| i16::from(row % 7 != 0)).collect();
        let closes: Vec<f64> = range.clone().filter(|row| row % 7 != 0).map(|row| row as f64 / 3.0).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&closes, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let venues = vec!["binance".into(); times.len()];
        column.typed::<ByteArrayType>().write_batch(&venues, Some(&vec![1; times.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn opened(bytes: &[u8]) -> Result<ParquetPieces, FileError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    ParquetPieces::open(file)
}

/// Every piece, or the first fault.
fn all(bytes: &[u8]) -> Result<Vec<Piece>, FileError> {
    let mut pieces = opened(bytes)?;
    let mut found = Vec::new();
    while let Some(piece) = pieces.next()? {
        found.push(piece);
    }
    Ok(found)
}

fn told(error: &FileError) -> String {
    assert!(matches!(error, FileError::Parquet(_)), "{error:?}");
    error.to_string()
}

#[test]
fn groups_come_in_pieces_with_the_values_that_were_written() {
    let plain = written(&[120_000, 0, 3], Compression::UNCOMPRESSED, 1_000);
    for packed in [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())] {
        let bytes = written(&[120_000, 0, 3], packed, 1_000);
        assert!(bytes.len() < plain.len());
        let pieces = all(&bytes).unwrap();
        assert!(
            pieces.iter().map(|piece| &piece.body).eq(all(&plain).unwrap().iter().map(|piece| &piece.body))
        );
    }
    let pieces = all(&plain).unwrap();
    let sizes: Vec<_> = pieces.iter().map(|piece| (piece.before, piece.rows)).collect();
    assert_eq!(sizes, [(0, 50_000), (50_000, 50_000), (100_000, 20_000), (120_000, 3)]);
    assert!(pieces.is_sorted_by_key(|piece| piece.read));
    assert_eq!(pieces[3].read, plain.len() as u64);
    let mut row = 0_i64;
    for piece in &pieces {
        for batch in StreamReader::try_new(&*piece.body, None).unwrap() {
            let batch = batch.unwrap();
            let times = batch.column(0).as_primitive::<TimestampMillisecondType>();
            let closes = batch.column(1).as_primitive::<Float64Type>();
            assert_eq!(
                (batch.column(2).data_type(), batch.column(2).null_count()),
                (&DataType::Utf8, batch.num_rows())
            );
            for at in 0..batch.num_rows() {
                assert_eq!(times.value(at), row);
                let close = closes.is_valid(at).then(|| closes.value(at));
                assert_eq!(close, (row % 7 != 0).then(|| row as f64 / 3.0), "{row}");
                row += 1;
            }
        }
    }
    assert_eq!(row, 120_003);
}

#[test]
fn types_become_those_that_the_worker_knows() {
    let message = "message m {
        required int32 date (DATE); required int32 small; required int32 un (INTEGER(32,false));
        required int32 price (DECIMAL(9,2)); required int64 micros (TIMESTAMP(MICROS,false));
        required int64 nanos (TIMESTAMP(NANOS,true)); required int64 old (TIMESTAMP_MILLIS);
        required int64 large; required int64 un64 (INTEGER(64,false)); required int96 spark; required float f;
        required boolean flag; required binary text (UTF8); required int64 clock (TIME(MICROS,true));
        repeated double many; optional group g { optional double deep; }
    }";
    let schema = Arc::new(parse_message_type(message).unwrap());
    let columns = parquet::schema::types::SchemaDescriptor::new(schema);
    let time = |unit| DataType::Timestamp(unit, None);
    let kinds: Vec<DataType> = columns.columns().iter().map(|known| column::kind(known)).collect();
    let read = [
        DataType::Date32,
        DataType::Int32,
        DataType::UInt32,
        DataType::Decimal128(9, 0),
        time(TimeUnit::Microsecond),
        time(TimeUnit::Nanosecond),
        time(TimeUnit::Millisecond),
        DataType::Int64,
        DataType::UInt64,
        time(TimeUnit::Nanosecond),
        DataType::Float32,
        DataType::Boolean,
        DataType::Utf8,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Binary,
        DataType::Binary,
    ];
    assert_eq!(kinds, read);
}

#[test]
fn what_is_no_parquet_is_a_fault() {
    let whole = written(&[300], Compression::SNAPPY, 100);
    for bytes in [&b""[..], b"PAR1", b"PAR1 but no more", &whole[4..], &whole[..whole.len() - 1]] {
        // Without its beginning every offset is wrong, and the last page has no header.
        told(&all(bytes).unwrap_err());
    }
    let mut long = whole.clone();
    let at = long.len() - 8;
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(told(&opened(&long).err().unwrap()).contains("footer has more than"));
}

#[test]
fn damage_anywhere_is_told_and_never_a_crash() {
    let whole = written(&[200, 100], Compression::ZSTD(ZstdLevel::default()), 50);
    for at in 0..whole.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            // Flipped values stay unseen; that is the worker's to judge. Nothing else is taken for whole.
            if let Err(error) = all(&bytes) {
                told(&error);
            }
        }
        assert!(all(&whole[..at]).is_err(), "{at}");
    }
}

#[test]
fn a_page_that_unpacks_to_more_than_the_limit_is_not_unpacked() {
    // 40 MiB of one value in one page: a few KiB when packed.
    let message = "message m { required double close; }";
    let schema = Arc::new(parse_message_type(message).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(1 << 30)
        .set_data_page_row_count_limit(usize::MAX)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&vec![1.0; 5 << 20], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let bytes = writer.into_inner().unwrap();
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    let said = told(&all(&bytes).unwrap_err());
    assert!(said.contains("column `close`, from row 0: ") && said.contains("more than the limit"), "{said}");
}
