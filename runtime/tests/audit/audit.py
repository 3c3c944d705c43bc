"""Compares what a sink of the customers pipeline holds with what `oracle.py` says it must hold.

    python3 audit.py expected.json usa=PATH alerts=PATH other=PATH dead_letters=PATH

A PATH is a directory of the file sink (Parquet takes pyarrow; what begins with `_` or `.` is none of its rows), a file
of lines of `Topics.java` or of `weir peek --json`, or a CSV file of PostgreSQL, `\\copy TABLE TO PATH WITH (FORMAT csv,
HEADER, NULL '\\N')`; where there is nothing, there are no rows. Exits with 1 if anything is missing, too much, or other
than it should be. It changes nothing, and needs the provenance of rows.
"""

import base64, csv, json, pathlib, sys

from oracle import add

CUSTOMER = ["id", "first_name", "last_name", "email", "age", "country"]


def rows(path):
    """Each as a dictionary with `weir_partition`, `weir_offset` and the columns of its route."""
    if path.is_dir():
        inside = [file for file in path.rglob("*") if not any(part[0] in "_." for part in file.relative_to(path).parts)]
        for file in filter(pathlib.Path.is_file, inside):
            yield from parquet(file) if file.suffix == ".parquet" else lines(file)
    elif not path.exists():
        return
    elif path.suffix == ".csv":
        csv.field_size_limit(sys.maxsize)
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield {name: None if value == "\\N" else value for name, value in row.items()}
    else:
        yield from lines(path)


def parquet(file):
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
        yield from batch.to_pylist()


def lines(file):
    with file.open(encoding="utf-8", newline="\n") as text:
        for row in map(json.loads, text):
            yield from_topic(row) if "headers" in row and "weir_offset" not in row else row


def from_topic(record):
    headers = {header["name"]: header.get("value") for header in record["headers"]}
    _, partition, offset, _, _ = headers["weir-origin"].split("/")
    row = {"weir_partition": partition, "weir_offset": offset}
    row["value"], row["value_bytes"] = record.get("value"), record.get("value_base64")
    row["reasons"] = headers.get("weir-reasons")
    return row


def content(route, row):
    """What `oracle.py` hashes of a row."""
    if route == "usa":
        row = json.loads(row["value"]) if "value" in row else row
        values = [row[name] for name in CUSTOMER]
        return values[:4] + [None if values[4] is None else int(values[4])] + values[5:]
    encoded = row["value_bytes"]
    if isinstance(encoded, bytes) or encoded and encoded.startswith("\\x"):
        encoded = base64.b64encode(encoded if isinstance(encoded, bytes) else bytes.fromhex(encoded[2:])).decode()
    return [row["value"], encoded]


def main(expected, *routes):
    with open(expected, encoding="utf-8") as file:
        expected = json.load(file)
    paths = dict(route.split("=", 1) for route in routes)
    right = True
    for route, must in expected.items():
        if route not in paths:
            sys.exit(f"audit: where are the rows of {route}? {route}=PATH")
        sums = {route: (0, 0)}
        for row in rows(pathlib.Path(paths[route])):
            add(sums, route, row["weir_partition"], row["weir_offset"], *content(route, row))
        count, total = sums[route]
        same = must == {"count": count, "digest": f"{total:032x}"}
        right = right and same
        verdict = "as it must be" if same else "other rows" if count == must["count"] else f"not {must['count']}"
        print(f"{route}: {count} rows, {verdict}")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
