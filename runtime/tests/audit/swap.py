"""Whether a customers pipeline whose plan was replaced while it ran has made of every record what one of its plans makes.

    python3 swap.py DIRECTORY

In the directory are `input.jsonl`, what `Topics.java` writes of the topic that was read; `history.json`, what `weir
history --json` says; `*.csv`, every table of cities that there was; and for each sink one directory with the rows of
each route, as `audit.py` reads them: `usa.jsonl` or `usa.csv`, and so on. What is wrong is told by name, a line each, and
then it exits with 1. It changes nothing, and needs the provenance of rows.
"""

import bisect, collections, csv, hashlib, json, pathlib, sys

import audit
from oracle import ROUTES, fate

SHOWN = 20


class Findings:
    """What is wrong, by name: the first of each in words, and how many there are."""

    def __init__(self):
        self.of = collections.defaultdict(list)

    def add(self, name, text):
        self.of[name].append(text)

    def end(self):
        for name, texts in self.of.items():
            for text in texts[:SHOWN]:
                print(f"{name}: {text}")
            print(f"{name}: {len(texts)} in all")
        sys.exit(1 if self.of else 0)


class Plan:
    def __init__(self, what, cities):
        self.non_usa, self.on_bad_age = (what["settings"][name] for name in ("non_usa", "on_bad_age"))
        self.cities = cities[what["tables"]["us_cities"]["digest"]]
        self.routes = what["routes"]

    def makes(self, record, sink):
        """The route of the record to this sink and its content there, or nothing."""
        route, row = fate(record.get("value"), self.cities, self.on_bad_age)
        route = self.non_usa if route == "other" else route
        called = "weir_dead_letters" if route == "dead_letters" else route
        if route == "drop" or f"{sink}.{route}" not in self.routes[called]:
            return None
        if route == "usa":
            return route, list(row)
        whole = [record.get("value"), record.get("value_base64")]
        return route, whole + [row] if route == "dead_letters" else whole


def cities_in(directory):
    """Names of cities, by the digest of their file."""
    found = {}
    for path in directory.glob("*.csv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = {row["city"].upper() for row in csv.DictReader(file)}
        found["sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()] = names
    return found


def origin(row):
    """Partition, offset, index and plan of a row."""
    if "weir_offset" not in row:
        headers = {header["name"]: header.get("value") for header in row["headers"]}
        return tuple(map(int, headers["weir-origin"].split("/")[1:]))
    return tuple(int(row[name]) for name in ("weir_partition", "weir_offset", "weir_index", "weir_plan"))


def content_of(route, row):
    """Of a dead letter also the codes of its reasons."""
    content = list(audit.content(route, row))
    if route == "dead_letters":
        content.append(sorted(reason["code"] for reason in json.loads(row["reasons"])))
    return content


def rows_of(sink, findings):
    """Of each record its rows: route, index, plan and content."""
    made = collections.defaultdict(list)
    for route in ROUTES:
        for path in sorted(sink.glob(f"{route}.*")):
            with path.open(encoding="utf-8", newline="") as file:
                lines = map(json.loads, file) if path.suffix == ".jsonl" else table(file)
                for line in lines:
                    partition, offset, index, plan = origin(line)
                    row = line if "weir_offset" in line else audit.from_topic(line)
                    made[partition, offset].append((route, index, plan, content_of(route, row)))
    for (partition, offset), rows in made.items():
        if len(rows) > 1:
            findings.add("twice", f"{sink.name}: {partition}/{offset} has {len(rows)} rows")
    return made


def table(file):
    csv.field_size_limit(sys.maxsize)
    for row in csv.DictReader(file):
        yield {name: None if value == "\\N" else value for name, value in row.items()}


def check_plans(history, findings):
    """Each replaces the one before it."""
    before = None
    for plan in history["plans"]:
        if plan["what"]["replaces"] != before:
            findings.add("no chain", f"plan {plan['plan']} replaces {plan['what']['replaces']}, and {before} was there")
        before = plan["plan"]


def check_sink(name, records, made, plans, findings):
    """Every record has what its plan makes; where that is nothing, a plan of its neighbourhood makes nothing."""
    numbers = sorted(plans)
    for at in made.keys() - records.keys():
        findings.add("from nowhere", f"{name}: {at[0]}/{at[1]} is no record")
    for partition, offsets in offsets_of(records).items():
        highest, missing = numbers[0], []

        def settle(until):
            around = [plans[number] for number in numbers if highest <= number <= until]
            for offset in missing:
                if all(plan.makes(records[partition, offset], name) for plan in around):
                    findings.add("lost", f"{name}: {partition}/{offset}, between plans {highest} and {until}")
            missing.clear()

        for offset in offsets:
            rows = made.get((partition, offset))
            if not rows:
                missing.append(offset)
                continue
            for route, index, plan, content in rows:
                if plan not in plans:
                    findings.add("no such plan", f"{name}: {partition}/{offset} is of plan {plan}")
                    continue
                if plans[plan].makes(records[partition, offset], name) != (route, content) or index != 0:
                    findings.add("not what its plan makes", f"{name}: {partition}/{offset} on {route}, plan {plan}")
                if plan < highest:
                    findings.add("plan goes down", f"{name}: {partition}/{offset} is of plan {plan} behind {highest}")
                settle(plan)
                highest = max(highest, plan)
        settle(numbers[-1])


def offsets_of(records):
    offsets = collections.defaultdict(list)
    for partition, offset in sorted(records):
        offsets[partition].append(offset)
    return offsets


def check_agreement(sinks, records, plans, findings):
    """A record was made by one plan, in all sinks to which that has something go."""
    (one, made), *others = sinks.items()
    for other, theirs in others:
        for at in made.keys() ^ theirs.keys():
            here, rows, there = (one, made, other) if at in made else (other, theirs, one)
            plan = plans.get(rows[at][0][2])
            if plan is None or at not in records or plan.makes(records[at], there):
                findings.add("in one sink alone", f"{at[0]}/{at[1]} is in {here}")
        for at in made.keys() & theirs.keys():
            ours, other_ones = ({row[2] for row in made[at]}, {row[2] for row in theirs[at]})
            if ours != other_ones:
                text = f"{at[0]}/{at[1]} is of plan {sorted(ours)} in {one} and {sorted(other_ones)} in {other}"
                findings.add("sinks differ", text)


def check_cuts(history, made, findings):
    """What the plan log tells people is what the rows say."""
    offsets = offsets_of(made)
    for cut in history["cuts"]:
        partition, start, plan = cut["partition"], cut["from"], cut["plan"]
        here = bisect.bisect_left(offsets[partition], start)
        for n, right in ((here - 1, lambda found: found < plan), (here, lambda found: found >= plan)):
            if 0 <= n < len(offsets[partition]):
                offset = offsets[partition][n]
                found = made[partition, offset][0][2]
                if not right(found):
                    text = f"{partition}: plan {plan} is told to begin at {start}, and {offset} is of plan {found}"
                    findings.add("cut elsewhere", text)


def main(directory):
    directory, findings = pathlib.Path(directory), Findings()
    history = json.loads((directory / "history.json").read_text(encoding="utf-8"))
    check_plans(history, findings)
    cities = cities_in(directory)
    plans = {plan["plan"]: Plan(plan["what"], cities) for plan in history["plans"]}
    with (directory / "input.jsonl").open(encoding="utf-8", newline="\n") as file:
        records = {(record["partition"], record["offset"]): record for record in map(json.loads, file)}
    sinks = {sink.name: rows_of(sink, findings) for sink in sorted(directory.iterdir()) if sink.is_dir()}
    for name, made in sinks.items():
        check_sink(name, records, made, plans, findings)
        check_cuts(history, made, findings)
    check_agreement(sinks, records, plans, findings)
    rows = {name: sum(map(len, made.values())) for name, made in sinks.items()}
    worked = {row[2] for made in sinks.values() for rows in made.values() for row in rows}
    print(json.dumps({"records": len(records), "rows": rows, "plans": len(plans), "plans_with_rows": len(worked)}))
    findings.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
