# What an agent would write: look at an unknown CSV file, clean it, group it, draw it.
import matplotlib.pyplot as plt
import pandas as pd

path = "/home/user/data.csv"
raw = pd.read_csv(path)
print(f"{path}: {len(raw):,} rows, columns {', '.join(map(str, raw.columns))}")


def as_dates(column):
    """The column as dates, or None when most of it is none."""
    text = column.astype("string")
    for form in ("%Y%m%d", "%Y-%m-%d", "%d/%m/%Y", "ISO8601"):
        dates = pd.to_datetime(text, format=form, errors="coerce")
        if dates.notna().mean() > 0.9:
            return dates
    return None


dates = next((d for d in map(as_dates, (raw[c] for c in raw.columns)) if d is not None), None)
values = [c for c in raw.select_dtypes("number").columns if raw[c].nunique() > 1]
if dates is not None:
    values = [c for c in values if as_dates(raw[c]) is None]
if not values:
    raise ValueError("no column of numbers to look at")
value = values[0]

clean = raw.dropna(subset=[value])
print(f"{len(raw) - len(clean)} rows without {value} left out")

if dates is not None:
    key, label = dates[clean.index].dt.year, "year"
else:
    words = [c for c in raw.columns if c != value and raw[c].nunique() <= 50]
    key = clean[words[0]] if words else clean.index // max(1, len(clean) // 20)
    label = str(words[0]) if words else "part"
table = clean.groupby(key.rename(label) if hasattr(key, "rename") else key)[value].agg(["count", "mean", "min", "max"])
print()
print(table.round(2).to_string(max_rows=14))

figure, axes = plt.subplots(figsize=(9, 4.5))
if dates is not None:
    axes.plot(dates[clean.index], clean[value], linewidth=0.6, label="each row")
    middle = pd.to_datetime(table.index.astype(str) + "-07-01")
    axes.plot(middle, table["mean"], linewidth=2, label="mean of the year")
    axes.legend()
else:
    table["mean"].plot.bar(ax=axes)
axes.set(title=f"{value} by {label}", xlabel=label, ylabel=str(value))
axes.grid(alpha=0.3)
figure.tight_layout()
plt.show()

{
    "rows": len(clean),
    "first": round(float(table["mean"].iloc[0]), 2),
    "last": round(float(table["mean"].iloc[-1]), 2),
    "change_per_" + label: round(float(table["mean"].diff().mean()), 3),
}
