"""The records of hostile.jsonl: what arrives in practice instead of a sound customer; never a line feed inside one.

`CASES` pairs what a line is with its bytes. Where only one field is wrong, `customer` supplies the rest.
"""

import json

SOUND = {
    "id": "1",
    "first_name": "Ada",
    "last_name": "Barlow",
    "email": "ada.barlow@example.com",
    "age": "41",
    "location": "Austin, Texas",
}


def customer(without=(), **fields):
    """The sound customer as JSON with some fields replaced (a bytes value goes in as it is) or left out."""
    members = {**SOUND, **fields}
    return b"{%s}" % b",".join(
        b'"%s":%s' % (key.encode(), value if isinstance(value, bytes) else to_json(value))
        for key, value in members.items()
        if key not in without
    )


def to_json(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def nested(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


CASES = [
    ("a sound customer, for comparison", customer()),
    ("cut off inside a value", customer()[:-8]),
    ("text that is not JSON", b"ERROR 2024-02-29 upstream timed out"),
    ("an array that holds a customer", b"[%s]" % customer()),
    ("`null`", b"null"),
    ("a number", b"42"),
    ("a string that holds a customer as JSON", to_json(customer().decode())),
    ("an empty object", b"{}"),
    ("three spaces", b"   "),
    ("no `id`", customer(without=["id"])),
    ("no `location`", customer(without=["location"])),
    ("`id` is null", customer(id=None)),
    ("`id` is a number", customer(id=1)),
    ("`id` is the float 1.0", customer(id=1.0)),
    ("`location` is null", customer(location=None)),
    ("`location` is a number", customer(location=78701)),
    ("`location` is an object", customer(location={"city": "Austin", "state": "Texas"})),
    ("`age` is a number", customer(age=41)),
    ("`age` is a string with spaces around it", customer(age="  41 ")),
    ('`age` is "abc"', customer(age="abc")),
    ("`age` is the number 41.5", customer(age=41.5)),
    ("`age` is the number -3", customer(age=-3)),
    ("`age` is the number 1e3", customer(age=b"1e3")),
    ("`age` is an integer of 400 digits", customer(age=b"1234567890" * 40)),
    ("`age` is 2^63 - 1, the largest int64", customer(age=b"9223372036854775807")),
    ("`age` is 2^63, one more than the largest int64", customer(age=b"9223372036854775808")),
    ("`age` is the token NaN, another field is -Infinity", customer(age=b"NaN", score=b"-Infinity")),
    ("`id` and `location` twice, with different values", customer()[:-1] + b',"id":"2","location":"Oslo"}'),
    ("a lone surrogate, `\\ud800`, in a name", customer(first_name=b'"Ada\\ud800"')),
    ("a surrogate pair, `\\ud83d\\ude00`, in a name", customer(first_name=b'"Ada\\ud83d\\ude00"')),
    ("a key written with an escape: `\\u0069d` is `id`", customer().replace(b'"id"', b'"\\u0069d"')),
    ("the escape `\\u0000` in a name", customer(first_name=b'"Ada\\u0000"')),
    ("text after the end of the object", customer() + b" EOF"),
    ("two objects", customer() + customer(id="2")),
    ("a byte order mark before the object", b"\xef\xbb\xbf" + customer()),
    ("names that are not UTF-8: Latin-1, half a character", customer(first_name=b'"Zo\xeb"', last_name=b'"M\xc3"')),
    ("an unknown field nested 200 levels deep", customer(extra=nested(200))),
    ("unknown fields with arrays and objects", customer(tags=["vip", None, 7], meta={"source": {"ip": "192.0.2.1"}})),
    ("a name of 20,000 letters", customer(last_name="x" * 20_000)),
    (
        "SQL in one name, a spreadsheet formula in the other",
        customer(first_name="Robert'); DROP TABLE customers_usa;--", last_name="=1+1"),
    ),
    (
        "an emoji joined by U+200D; right-to-left text and the override U+202E",
        customer(first_name="\U0001f469\u200d\U0001f680", last_name="ليلى \u202eevil"),
    ),
    ("white space around the object, a carriage return at the end", b"\t  " + customer() + b"  \r"),
    ("an unescaped U+0001 and an unescaped tab in names", customer(first_name=b'"A\x01da"', last_name=b'"Bar\tlow"')),
    ("single quotes instead of double ones", customer().replace(b'"', b"'")),
    ("a comment and a trailing comma", customer()[:-1] + b", /* new */ }"),
]


def write(path):
    lines = [record for _, record in CASES]
    assert all(record and b"\n" not in record for record in lines), "a record is one line"
    path.write_bytes(b"".join(record + b"\n" for record in lines))


def grammar(record):
    """What the record is by the grammar of RFC 8259, which has no NaN, no byte order mark, and does allow `\\ud800`."""
    try:
        value = json.loads(record.decode("utf-8"), parse_constant=reject)
    except ValueError:
        return "not JSON"
    names = {dict: "object", list: "array", str: "string", int: "number", type(None): "null"}
    return names[type(value)]


def reject(token):
    raise ValueError(f"{token} is not JSON")
