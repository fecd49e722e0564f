#!/usr/bin/env python3
"""Writes talib-0.8.1.txt and risk.txt beside itself, from TA-Lib C 0.8.1 and empyrical 0.7.1.

Run by hand, never by the gate, in an environment of its own:

    pip install ta-lib==0.8.2 empyrical-reloaded==0.7.1
    python calc/tests/golden/make.py

The series are the columns of conf/demo, so both sides read the same decimals, and the markets of `made`,
which golden.rs makes by the same steps. A line is

    name|parameters|series|output|lookback|count|fnv64 of all bits or -|row:bits ...

`count` is the number of values after the lookback, `bits` the hexadecimal bits of an f64. The wheel's
compiler fuses the multiplication and addition of an exponential average; golden.rs shows that its bits
are those of the fused step. A line of risk.txt is `series|figure|value`,
of the simple returns of closes at 252 periods a year, nothing risk-free, alpha 0.05.
"""

import csv
import math
import pathlib
import struct

import empyrical
import numpy as np
import talib
from talib import abstract

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parents[2] / "conf" / "demo"
SERIES = "GOOG"
SAMPLES = 12
MADE = {"plain": 100.0, "tiny": 1e-9, "huge": 1e9, "gaps": 100.0, "still": 100.0, "untraded": 100.0}
MADE_BARS = 300
MADE_SAMPLES = 4

# Ours: (TA-Lib's function, [(our parameter, TA-Lib's)], two sets, our outputs, equal in every bit)
P = [("period", "timeperiod")]
FSS = [("fast", "fastperiod"), ("slow", "slowperiod"), ("signal", "signalperiod")]
FS = FSS[:2]
ONE = ["value"]
TABLE = {
    "sma": ("SMA", P, [[30], [7]], ONE, False),
    "ema": ("EMA", P, [[30], [9]], ONE, True),
    "wma": ("WMA", P, [[30], [9]], ONE, False),
    "dema": ("DEMA", P, [[30], [9]], ONE, False),
    "tema": ("TEMA", P, [[30], [9]], ONE, False),
    "trima": ("TRIMA", P, [[30], [9]], ONE, False),
    "kama": ("KAMA", P, [[30], [9]], ONE, False),
    "macd": ("MACD", FSS, [[12, 26, 9], [5, 35, 5]], ["macd", "signal", "histogram"], False),
    "rsi": ("RSI", P, [[14], [5]], ONE, True),
    "mom": ("MOM", P, [[10], [3]], ONE, False),
    "roc": ("ROC", P, [[10], [3]], ONE, False),
    "trix": ("TRIX", P, [[30], [9]], ONE, False),
    "cmo": ("CMO", P, [[14], [5]], ONE, False),
    "atr": ("ATR", P, [[14], [5]], ONE, False),
    "natr": ("NATR", P, [[14], [5]], ONE, False),
    "trange": ("TRANGE", [], [[]], ONE, True),
    "adx": ("ADX", P, [[14], [5]], ONE, False),
    "adxr": ("ADXR", P, [[14], [5]], ONE, False),
    "dx": ("DX", P, [[14], [5]], ONE, False),
    "willr": ("WILLR", P, [[14], [5]], ONE, False),
    "cci": ("CCI", P, [[14], [20]], ONE, False),
    "mfi": ("MFI", P, [[14], [5]], ONE, False),
    "aroonosc": ("AROONOSC", P, [[14], [25]], ONE, False),
    "bop": ("BOP", [], [[]], ONE, False),
    "obv": ("OBV", [], [[]], ONE, True),
    "ad": ("AD", [], [[]], ONE, False),
    "adosc": ("ADOSC", FS, [[3, 10], [5, 20]], ONE, False),
    "max": ("MAX", P, [[30], [5]], ONE, True),
    "min": ("MIN", P, [[30], [5]], ONE, True),
    "midpoint": ("MIDPOINT", P, [[14], [5]], ONE, False),
    "midprice": ("MIDPRICE", P, [[14], [5]], ONE, False),
    "stddev": ("STDDEV", P, [[5], [20]], ONE, False),
    "linearreg": ("LINEARREG", P, [[14], [5]], ONE, False),
    "slope": ("LINEARREG_SLOPE", P, [[14], [5]], ONE, False),
    "tsf": ("TSF", P, [[14], [5]], ONE, False),
    "stoch": ("STOCH", [("fast_k", "fastk_period"), ("slow_k", "slowk_period"), ("slow_d", "slowd_period")],
              [[5, 3, 3], [14, 3, 3]], ["k", "d"], False),
    "t3": ("T3", [("period", "timeperiod"), ("volume_factor", "vfactor")], [[5, 0.7], [9, 0.5]], ONE, False),
    "apo": ("APO", FS + [("", "matype")], [[12, 26, 1], [5, 35, 1]], ONE, False),
    "ppo": ("PPO", FS + [("", "matype")], [[12, 26, 1], [5, 35, 1]], ONE, False),
    "stochrsi": ("STOCHRSI", P + [("fast_k", "fastk_period"), ("fast_d", "fastd_period")],
                 [[14, 5, 3], [9, 14, 3]], ["fastk", "fastd"], False),
    "ultosc": ("ULTOSC", [("short", "timeperiod1"), ("medium", "timeperiod2"), ("long", "timeperiod3")],
               [[7, 14, 28], [3, 5, 9]], ONE, False),
    "aroon": ("AROON", P, [[14], [25]], ["down", "up"], True),
    "psar": ("SAR", [("acceleration", "acceleration"), ("maximum", "maximum")], [[0.02, 0.2], [0.05, 0.5]], ONE, False),
    "bbands": ("BBANDS", P + [("up", "nbdevup"), ("down", "nbdevdn")],
               [[5, 2.0, 2.0], [20, 2.0, 2.0]], ["upper", "middle", "lower"], False),
    "var": ("VAR", P, [[5], [20]], ONE, False),
    "intercept": ("LINEARREG_INTERCEPT", P, [[14], [5]], ONE, False),
    "angle": ("LINEARREG_ANGLE", P, [[14], [5]], ONE, False),
    "di": ([("PLUS_DI"), ("MINUS_DI")], P, [[14], [5]], ["plus", "minus"], False),
    "stochf": ("STOCHF", [("fast_k", "fastk_period"), ("fast_d", "fastd_period")],
               [[5, 3], [14, 5]], ["fastk", "fastd"], False),
}
for pattern in ("doji dragonflydoji hammer invertedhammer hangingman shootingstar marubozu engulfing harami piercing "
                "darkcloudcover morningstar eveningstar 3whitesoldiers 3blackcrows").split():
    TABLE[f"cdl{pattern}"] = (f"CDL{pattern.upper()}", [], [[]], ONE, True)


def made(name):
    """A market of MADE_BARS bars: the steps are those of golden.rs, in the same order."""
    state, still = 7, name == "still"

    def chance():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) / 2147483648.0

    bars, close = {key: [] for key in ("open", "high", "low", "close", "volume")}, MADE[name]
    for _ in range(MADE_BARS):
        first = close * (1.0 + (chance() - 0.5) * (0.1 if name == "gaps" else 0.0))
        last = first * (1.0 + (chance() - 0.5) * (0.0 if still else 0.04))
        high = max(first, last) * (1.0 + chance() * (0.0 if still else 0.01))
        low = min(first, last) * (1.0 - chance() * (0.0 if still else 0.01))
        volume = math.floor(chance() * 1000.0) * (0.0 if name == "untraded" else 1.0)
        for key, value in zip(bars, (first, high, low, last, volume)):
            bars[key].append(value)
        close = last
    return {key: np.array(values) for key, values in bars.items()}


def columns(name):
    if name in MADE:
        return made(name)
    with open(DEMO / f"{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("open", "high", "low", "close", "volume")
    return {key: np.array([float(row[key]) for row in rows]) for key in names}


def bits(value):
    return struct.pack(">d", value).hex()


def fnv64(values):
    total = 0xCBF29CE484222325
    for byte in b"".join(struct.pack("<d", value) for value in values):
        total = (total ^ byte) * 0x100000001B3 % 2**64
    return f"{total:016x}"


def lines(name, series):
    functions, names, sets, outputs, exact = TABLE[name]
    functions = [functions] if isinstance(functions, str) else functions
    if series in MADE:
        sets, exact = sets[:1], exact and not name.startswith("cdl")
    for values in sets:
        found = []
        for function in functions:
            call = abstract.Function(function)
            call.parameters = {theirs: value for (_, theirs), value in zip(names, values)}
            result = call(columns(series))
            found += [result] if isinstance(result, np.ndarray) else result
        given = ",".join(f"{ours}={value}" for (ours, _), value in zip(names, values) if ours)
        for output, column in zip(outputs, found, strict=True):
            begin, last = call.lookback, len(column) - 1
            column = column.astype(float)
            if not name.startswith("cdl"):
                assert all(map(math.isnan, column[:begin])), name
            finite = np.isfinite(column[begin:]).all()
            if not finite:
                print(f"{name} of {series}: {np.count_nonzero(~np.isfinite(column[begin:]))} values are no numbers")
            count = MADE_SAMPLES if series in MADE else SAMPLES
            rows = sorted({begin + (last - begin) * i // (count - 1) for i in range(count)})
            samples = " ".join(f"{row}:{bits(column[row])}" for row in rows if math.isfinite(column[row]))
            whole = fnv64(column[begin:]) if exact and finite else "-"
            yield f"{name}|{given}|{series}|{output}|{begin}|{len(column) - begin}|{whole}|{samples}"


RISK = {
    "sharpe": empyrical.sharpe_ratio,
    "sortino": empyrical.sortino_ratio,
    "cagr": empyrical.cagr,
    "volatility": empyrical.annual_volatility,
    "calmar": empyrical.calmar_ratio,
    "omega": empyrical.omega_ratio,
    "max_drawdown": empyrical.max_drawdown,
    "tail_ratio": empyrical.tail_ratio,
    "var": empyrical.value_at_risk,
    "cvar": empyrical.conditional_value_at_risk,
    "stability": empyrical.stability_of_timeseries,
}


def risk_lines():
    for series in ("GOOG", "SP500"):
        close = columns(series)["close"]
        returns = close[1:] / close[:-1] - 1.0
        for figure, call in RISK.items():
            yield f"{series}|{figure}|{float(call(returns))!r}"


def main():
    assert talib.__version__ == "0.8.2", talib.__version__
    head = f"# By make.py from ta-lib {talib.__version__} (C {talib.__ta_version__.decode().split()[0]}), numpy {np.__version__}"
    body = [line for series in (SERIES, *MADE) for name in TABLE for line in lines(name, series)]
    (HERE / "talib-0.8.1.txt").write_text("\n".join([head, *body]) + "\n")
    (HERE / "risk.txt").write_text("\n".join(["# By make.py from empyrical-reloaded 0.7.1", *risk_lines()]) + "\n")


if __name__ == "__main__":
    main()
