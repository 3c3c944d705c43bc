"""What each route of the customers pipeline must hold, by a reading of its rule that shares no line with it.

    weir peek TOPIC --from start -n N --json | python3 oracle.py CITIES.csv > expected.json
    python3 oracle.py CITIES.csv INPUT.csv ... > expected.json        the files in the order of their partitions

`--non-usa=alerts` and `--non-usa=drop`, before these, are that setting of the rule; without it, it is `other`.
Per route: how many rows, and the sum of a hash of each with the partition and offset of its record, so that the order
does not count and a row too many cannot hide one that is missing. It reads no output: that is `audit.py`.
"""

import csv, hashlib, json, re, sys

ROUTES = ["usa", "alerts", "other", "dead_letters"]
BLANK = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
TEXT, NUMBER, WRONG = (str, type(None)), type("Number", (str,), {}), object()


def add(sums, route, partition, offset, *row):
    line = json.dumps([int(partition), int(offset), *row], ensure_ascii=False)
    count, total = sums[route]
    sums[route] = count + 1, (total + int.from_bytes(hashlib.sha256(line.encode()).digest()[:16])) % (1 << 128)


def depth(value):
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(depth, inside), default=0)


def refuse(token):
    raise ValueError(f"{token} is not JSON")


def read(text):
    """The object in it, with numbers as they are written, or nothing."""
    try:
        found = json.loads(text, parse_int=NUMBER, parse_float=NUMBER, parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()  # not with half a character in it
        return found if isinstance(found, dict) and depth(found) <= 128 else None
    except (ValueError, RecursionError):
        return None


def clean(value):
    if type(value) not in TEXT:
        return WRONG
    return (value or "").strip(BLANK) or None


def fate(text, cities, on_bad_age="reject"):
    """The route of a record, and its row if that has columns; of a dead letter the codes of its reasons."""
    customer = read(text) if text is not None else None
    place = clean(customer.get("location")) if customer else None
    if place in (None, WRONG):
        return ("alerts", None) if place is None else ("dead_letters", ["location-not-text"])
    number = lambda value: str(value) if type(value) is NUMBER else value
    known = place.upper() in cities or place.partition(",")[0].strip(BLANK).upper() in cities
    if not known or clean(number(customer.get("id"))) is None:
        return "other", None
    names = [clean(customer.get(name)) for name in ("first_name", "last_name", "email")]
    identity, age = customer["id"], clean(number(customer.get("age")))
    identity = WRONG if type(identity) is NUMBER and not identity.lstrip("-").isdecimal() else clean(number(identity))
    codes = zip(("id-not-text", "name-not-text", "name-not-text", "email-not-text"), (identity, *names))
    reasons = {code for code, value in codes if value is WRONG}
    if age is not None:
        is_number = age is not WRONG and re.fullmatch("-?[0-9]+", age)
        age = int(age) if is_number and 0 <= int(age) <= 150 else None
        if age is None and on_bad_age == "reject":
            reasons.add("age-out-of-range" if is_number else "age-not-integer")
    return ("dead_letters", sorted(reasons)) if reasons else ("usa", (identity, *names, age, "USA"))


def records(files):
    """Partition, offset and value of each: a text, or None with the base64 of other bytes."""
    for partition, name in enumerate(files):
        with open(name, encoding="utf-8", newline="") as file:
            for offset, row in enumerate(csv.DictReader(file)):
                yield partition, offset, json.dumps(row, ensure_ascii=False, separators=(",", ":")), None
    for line in sys.stdin if not files else ():
        record = json.loads(line)
        yield record["partition"], record["offset"], record.get("value"), record.get("value_base64")


def main(cities, *files, non_usa="other"):
    with open(cities, encoding="utf-8-sig", newline="") as file:
        known = {row["city"].upper() for row in csv.DictReader(file)}
    sums = dict.fromkeys(ROUTES, (0, 0))
    for partition, offset, text, encoded in records(files):
        route, row = fate(text, known)
        route = non_usa if route == "other" else route
        if route == "drop":
            continue
        add(sums, route, partition, offset, *(row if route == "usa" else (text, encoded)))
    json.dump({route: {"count": n, "digest": f"{total:032x}"} for route, (n, total) in sums.items()}, sys.stdout)
    print()


if __name__ == "__main__":
    setting, words = "--non-usa=", sys.argv[1:]
    others = [word.removeprefix(setting) for word in words if word.startswith(setting)]
    main(*(word for word in words if not word.startswith(setting)), non_usa=(others or ["other"])[-1])
