"""Clients of the calculation worker as quants have them: pyarrow, polars and numpy, through the edge.

    calc.py --sluice PATH

Files of Parquet as pyarrow and polars write them are imported into stored series. Every form of a series goes in, every form of an answer comes out, and all of them must hold the same bits: those of a
hundred thousand random decimals as Python reads them, sent as text and as numbers. Packages come from the package index
into the virtual environment of deploy.py; where they cannot be had this fails: nothing is passed over.
Prints a line a check, then `calc: N passed, N failed`; exits 0 or 1.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from deploy import VENV, Fault, run
from instance import Instance, StartError

PACKAGES = "pyarrow==26.0.1 polars==2.1.0 numpy==2.4.6"
HERE = Path(__file__).resolve()
PATH = "/calculations/indicators"
ARROW, COLUMNS = "application/vnd.apache.arrow.stream", "application/x-sluice-columns"
# How long one call may take, seconds.
CALL_S = 30
DECIMALS = 100_000
# Wished for by every client: one output, and three of one indicator.
WISHES = [{"name": "sma", "period": 3}, {"name": "bbands", "period": 20, "id": "b"}]
NAMES = ["sma.value", "b.upper", "b.middle", "b.lower"]


def install():
    """The clients' packages."""
    stamp = VENV / "calc.release"
    if not (stamp.is_file() and stamp.read_text() == PACKAGES):
        if not (VENV / "bin/pip").exists():
            run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES.split())
        stamp.write_text(PACKAGES)


class Clients:
    """The checks, in the interpreter that has the packages."""

    def __init__(self, edge, token, sluice):
        self.edge, self.token, self.sluice = edge, token, sluice

    def ask(self, body, kind="application/json", accept="application/json", query="", path=PATH):
        headers = {"authorization": f"Bearer {self.token}", "content-type": kind, "accept": accept}
        asked = urllib.request.Request(f"{self.edge}{path}{query}", body, headers)
        try:
            with urllib.request.urlopen(asked, timeout=CALL_S) as answer:
                if answer.headers["content-type"] != accept:
                    raise Fault(f"{accept} was asked for, {answer.headers['content-type']} came")
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Fault(f"{kind} to {accept}: {error.code} {error.read()[:300]}") from None

    def json(self, data, **more):
        return json.loads(self.ask(json.dumps({"data": data, "indicators": WISHES, **more}).encode()))

    def expected(self, candles):
        """What JSON says, as columns of bits."""
        answer = self.json({name: list(values) for name, values in candles.items()})["indicators"]
        outputs = [answer[name.split(".")[0]][name.split(".")[1]] for name in NAMES]
        return [bits(float("nan") if value is None else value for value in output) for output in outputs]

    def decimals(self):
        """From text to number and back to text, through an indicator that answers what it is given."""
        chance = random.Random(7)
        texts = []
        for _ in range(DECIMALS):
            digits = "".join(chance.choice("0123456789") for _ in range(chance.randint(1, 21))).lstrip("0") or "0"
            cut = chance.randint(0, len(digits))
            text = f"{digits[:cut] or '0'}.{digits[cut:]}" if cut < len(digits) else digits
            texts.append(text + (f"e{chance.randint(-40, 40)}" if chance.random() < 0.1 else ""))
        # The true range of a bar that opens at nothing is its high.
        zeros = ",".join("0" for _ in texts)
        body = (f'{{"data":{{"high":[{",".join(texts)}],"low":[{zeros}],"close":[{zeros}]}},'
                '"indicators":[{"name":"atr","period":1,"first_range":"high_low"}]}')
        answer = json.loads(self.ask(body.encode()))["indicators"]["atr"]["value"]
        same(bits(float(text) for text in texts), bits(answer), "decimals")
        return f"{DECIMALS} random decimals come back from text to text with the bits that Python reads"

    def arrow(self):
        import pyarrow as pa

        candles = candles_of(3_000)
        schema = pa.schema([("timestamp", pa.timestamp("ms")), *((name, pa.float64()) for name in list(candles)[1:])],
                           metadata={"sluice.request": json.dumps({"symbol": "X", "indicators": WISHES})})
        table = pa.table([pa.array(values, field.type) for values, field in zip(candles.values(), schema)], schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table, max_chunksize=1_000)
        answer = pa.ipc.open_stream(self.ask(sink.getvalue().to_pybytes(), ARROW, ARROW)).read_all()
        expected = self.expected(candles)
        if answer.column_names != ["timestamp", *NAMES]:
            raise Fault(f"columns {answer.column_names}")
        for name, column in zip(NAMES, expected):
            same(column, bits(answer[name].to_pylist()), name)
        if answer["timestamp"].to_pylist() != candles["timestamp"]:
            raise Fault("times are others")
        about = json.loads(answer.schema.metadata[b"sluice.answer"])
        if (about["symbol"], about["count"], about["lookback"]["b"]) != ("X", 3_000, 19):
            raise Fault(f"the schema says {about}")
        return f"pyarrow {pa.__version__}: a table in three batches in, a table out"

    def polars(self):
        import io

        import polars as pl

        candles = candles_of(2_000)
        # Polars keeps no metadata of a schema: the wish is written beside its columns by pyarrow.
        import pyarrow as pa
        frame = pl.DataFrame(candles).with_columns(pl.col("volume").cast(pl.Float32))
        table = frame.to_arrow().replace_schema_metadata({"sluice.request": json.dumps({"indicators": WISHES})})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        answer = pl.read_ipc_stream(io.BytesIO(self.ask(sink.getvalue().to_pybytes(), ARROW, ARROW)))
        for name, column in zip(NAMES, self.expected(candles)):
            same(column, bits(answer[name].to_list()), name)
        query = "?request=" + urllib.parse.quote(json.dumps({"indicators": WISHES}))
        text = self.ask(frame.write_csv().encode(), "text/csv", "text/csv", query)
        answer = pl.read_csv(text, infer_schema_length=None)
        for name, column in zip(NAMES, self.expected(candles)):
            same(column, bits(float("nan") if value is None else value for value in answer[name].to_list()), name)
        return f"polars {pl.__version__}: a frame as a stream and as CSV in, frames out"

    def numpy(self):
        import numpy as np

        candles = candles_of(5_000)
        arrays = {name: np.array(values, "<i8" if name == "timestamp" else "<f8") for name, values in candles.items()}
        stride = -(-arrays["close"].nbytes // 64) * 64
        places = [{"name": name, "type": "i64" if name == "timestamp" else "f64", "offset": at * stride}
                  for at, name in enumerate(arrays)]
        header = json.dumps({"rows": len(candles["close"]), "columns": places, "request": {"indicators": WISHES}})
        header += " " * (-(12 + len(header)) % 64)
        data = b"".join(array.tobytes().ljust(stride, b"\0") for array in arrays.values())
        body = b"SLCOLS1\n" + len(header).to_bytes(4, "little") + header.encode() + data
        answer = self.ask(body, COLUMNS, COLUMNS)
        length = int.from_bytes(answer[8:12], "little")
        header = json.loads(answer[12:12 + length])
        found = {place["name"]: np.frombuffer(answer, {"f64": "<f8", "i64": "<i8"}[place["type"]], header["rows"],
                                              12 + length + place["offset"]) for place in header["columns"]}
        for name, column in zip(NAMES, self.expected(candles)):
            same(column, bits(found[name].tolist()), name)
        if found["timestamp"].tolist() != candles["timestamp"] or (12 + length) % 64:
            raise Fault("times or alignment are others")
        return f"numpy {np.__version__}: arrays in, arrays out, in place"

    def signals(self):
        import io

        import polars as pl
        import pyarrow as pa

        candles, wish = candles_of(1_500), {"strategy_config": {"name": "macd_cross"}, "output": "full"}
        path = "/calculations/signals"
        rows = [list(row) for row in zip(*candles.values())]
        told = json.loads(self.ask(json.dumps({"data": rows, **wish}).encode(), path=path))["signals"]
        table = pl.DataFrame(candles).to_arrow()

        def stream_of(wish):
            sink = pa.BufferOutputStream()
            wished = table.replace_schema_metadata({"sluice.request": json.dumps(wish)})
            with pa.ipc.new_stream(sink, wished.schema) as writer:
                writer.write_table(wished)
            return sink.getvalue().to_pybytes()

        stream = self.ask(stream_of(wish), ARROW, ARROW, path=path)
        action = {"BUY": 1.0, "SELL": -1.0, "HOLD": 0.0}
        for frame in (pl.read_ipc_stream(io.BytesIO(stream)), pl.from_arrow(pa.ipc.open_stream(stream).read_all())):
            if not told or frame["timestamp"].to_list() != [signal["timestamp"] for signal in told]:
                raise Fault(f"{len(told)} signals, {len(frame)} rows")
            same(bits(action[signal["action"]] for signal in told), bits(frame["action"].to_list()), "action")
            same(bits(signal["price"] for signal in told), bits(frame["price"].to_list()), "price")
            for name, value in told[0]["indicators"].items():
                same(bits([value]), bits(frame[f"indicators.{name}"].to_list()[:1]), name)
        wish, path = {"timeframe": "1m", "metrics": ["sharpe", "max_drawdown"]}, "/calculations/risk"
        figures = json.loads(self.ask(stream_of(wish), ARROW, path=path))
        expected = json.loads(self.ask(json.dumps({"data": rows, **wish}).encode(), path=path))
        if figures != expected:
            raise Fault(f"{figures} are not {expected}")
        return f"{len(told)} signals as columns for polars and pyarrow, figures of a stream"

    def parquet(self):
        import polars as pl
        import pyarrow as pa
        import pyarrow.parquet as pq

        candles = candles_of(70_000)
        frame = pl.DataFrame(candles)
        table = frame.to_arrow()
        times = {unit: table.set_column(0, "timestamp", table["timestamp"].cast(pa.timestamp("ms")).cast(pa.timestamp(unit)))
                 for unit in ("s", "ms", "us", "ns")}
        named = table.append_column("venue", pa.array(["a"] * len(table)))
        files = {
            "snappy": lambda path: pq.write_table(times["ns"], path),
            "zstd": lambda path: pq.write_table(times["us"], path, compression="zstd", data_page_version="2.0",
                                                row_group_size=20_000),
            "plain": lambda path: pq.write_table(named, path, compression="none", use_dictionary=False),
            "split": lambda path: pq.write_table(times["ms"], path, use_byte_stream_split=["close", "open"],
                                                 use_dictionary=False),
            "spark": lambda path: pq.write_table(times["us"], path, use_deprecated_int96_timestamps=True),
            "polars": lambda path: frame.with_columns(pl.from_epoch("timestamp", "ms")).write_parquet(path),
        }
        with tempfile.TemporaryDirectory() as folder:
            for name, write in files.items():
                path = Path(folder) / f"{name}.parquet"
                write(path)
                self.stored(path, name, candles)
            whole = path.read_bytes()
            path.write_bytes(whole[:len(whole) // 2])
            self.refused(path, "not a Parquet file that can be read here")
            pq.write_table(table.set_column(4, "close", table["close"].cast(pa.string())), path)
            self.refused(path, "column `close` is Utf8, which is neither a number nor a time")
            pq.write_table(table, path, compression="gzip")
            self.refused(path, "gzip")
            high = table["high"].to_pylist()
            high[60_000] = 0.0
            pq.write_table(table.set_column(2, "high", pa.array(high)), path)
            self.refused(path, f"{path}: row 60000: ")
        return f"Parquet: {', '.join(files)} are imported with every bit, what is damaged or no number is named"

    def imported(self, path, symbol):
        command = [self.sluice, "series", "import", path, "--symbol", symbol, "--timeframe", "1m", "--url", self.edge]
        return subprocess.run(command, env={"SLUICE_TOKEN": self.token}, capture_output=True, text=True, timeout=CALL_S)

    def stored(self, path, name, candles):
        """Imports a file and compares what is stored."""
        symbol = f"PARQUET/{name.upper()}"
        done = self.imported(path, symbol)
        if done.returncode:
            raise Fault(f"{name}: {done.returncode} {done.stderr[:400]}")
        asked = urllib.request.Request(f"{self.edge}/series/{symbol}/1m?limit=100000",
                                       headers={"authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(asked, timeout=CALL_S) as answer:
            rows = json.load(answer)["data"]
        for at, (column, values) in enumerate(candles.items()):
            same(bits(values), bits(row[at] for row in rows), f"{name}: {column}")

    def refused(self, path, words):
        done = self.imported(path, "PARQUET/REFUSED")
        if done.returncode != 2 or words.lower() not in done.stderr.lower():
            raise Fault(f"`{words}` was expected: {done.returncode} {done.stderr[:400]}")


def candles_of(count):
    """Candles by chance, the same each time."""
    chance = random.Random(count)
    rows, price = [], 100.0
    for at in range(count):
        opened, price = price, price * (1 + chance.uniform(-0.01, 0.01))
        rows.append((1_700_000_000_000 + at * 60_000, opened, max(opened, price) * 1.001, min(opened, price) * 0.999,
                     price, chance.uniform(0, 50)))
    return dict(zip(("timestamp", "open", "high", "low", "close", "volume"), map(list, zip(*rows))))


def bits(values):
    """Every value to its last bit; all that is not a number is one."""
    return [float(value).hex() for value in values]


def same(expected, found, name):
    if expected != found:
        at = next((at for at, pair in enumerate(zip(expected, found)) if pair[0] != pair[1]), min(len(expected), len(found)))
        raise Fault(f"{name}: {len(expected)} and {len(found)} values, other at {at}: {expected[at:at + 1]} {found[at:at + 1]}")


def inside(edge, token, sluice):
    """All checks; whether each passed."""
    clients, passed, failed = Clients(edge, token, sluice), 0, 0
    for check in (clients.decimals, clients.arrow, clients.polars, clients.numpy, clients.signals, clients.parquet):
        try:
            print("ok", check(), flush=True)
            passed += 1
        except (Fault, OSError, KeyError, ValueError) as error:
            print(f"FAILED {check.__name__}: {type(error).__name__} {error}", flush=True)
            failed += 1
    print(f"calc: {passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sluice")
    parser.add_argument("--inside", nargs=3)
    given = parser.parse_args()
    if given.inside:
        return inside(*given.inside)
    try:
        install()
        with Instance(given.sluice) as instance:
            banner = instance.banner
            command = [VENV / "bin/python", HERE, "--inside", banner["edge"], banner["token"], instance.program]
            return subprocess.run(command, check=False).returncode
    except (Fault, StartError) as error:
        print(f"FAILED {error}\ncalc: 0 passed, 1 failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
