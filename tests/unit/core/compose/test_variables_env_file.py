import pytest

from controller.core.compose.variables import MAX_NAMES, EnvFileInvalid, read_env, read_raw_env


def env(text: str, **known: str) -> dict[str, str]:
    return read_env(text, known, lambda _name: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB = 2 \nC: 3\nexport D=4", {"A": "1", "B": "2", "C": "3", "D": "4"}),
        ("# no\n\nA=a # comment\nB=a#b", {"A": "a", "B": "a#b"}),
        ('A="x\\n\\"y\\"" # c\nB=\'$A\'', {"A": 'x\n"y"', "B": "$A"}),
        ('A="two\nlines"', {"A": "two\nlines"}),
        ("A=1\nB=${A}$OUT\nC=$$A", {"A": "1", "B": "1out", "C": "$A"}),
        ('A="\\$x \\0101"', {"A": "$x A"}),
        ("OUT\nNONE\nA=1", {"OUT": "out", "A": "1"}),
        ("\ufeffA=1\r\n", {"A": "1"}),
    ],
)
def test_a_file_is_read(text, expected):
    assert env(text, OUT="out") == expected


def test_known_variables_outrank_earlier_lines():
    assert env("A=own\nB=$A", A="outer") == {"A": "own", "B": "outer"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("A=1\nB!=2", 2), ("A B=1", 1), ("A=1\nB='x\n", 2), ("A=1\nB=${", 2), ("A=1\nexport ", 2)],
)
def test_a_bad_line_is_named(text, line):
    with pytest.raises(EnvFileInvalid) as caught:
        env(text)
    assert caught.value.line == line


def test_a_raw_file_means_what_it_says():
    text = '\ufeffA="q" $X # c\r\n  B= 1 \n#x\n\nOUT\nNONE\nC=a=b\nD=\'two\nE=\\n'
    assert read_raw_env(text, {"OUT": "out", "X": "x"}) == {
        "A": '"q" $X # c',
        "B": " 1 ",
        "OUT": "out",
        "C": "a=b",
        "D": "'two",
        "E": "\\n",
    }


@pytest.mark.parametrize(
    ("text", "line"), [("A=1\n=2", 2), ("A=1\nA B=1", 2), ("A =1", 1), ("\n" * 3 + "A\tB", 4)]
)
def test_a_bad_line_of_a_raw_file_is_named(text, line):
    with pytest.raises(EnvFileInvalid) as caught:
        read_raw_env(text, {})
    assert caught.value.line == line


def test_a_raw_file_is_bounded():
    with pytest.raises(EnvFileInvalid):
        read_raw_env("".join(f"A{n}=\n" for n in range(MAX_NAMES + 1)), {})
