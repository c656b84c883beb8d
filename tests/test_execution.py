import pytest

from quantplan.errors import BadUsage
from quantplan.execution import Execution, parse_execution


def test_this_process_is_the_default():
    assert parse_execution() == Execution() == Execution(0, 0, 1, None, ())
    assert not Execution().many and not parse_execution(rpc="a:1").many
    assert parse_execution(jobs=2).many and parse_execution(scheduler="tcp://a:8786").many


def test_servers_are_named_with_commas_between():
    assert parse_execution(rpc="10.0.0.1:50052, gpu-box.local:50053").rpc == ("10.0.0.1:50052", "gpu-box.local:50053")


@pytest.mark.parametrize(
    "words, sentence",
    [
        ({"jobs": 2, "rpc": "a:1"}, "--jobs 2 and --rpc a:1: choose one"),
        ({"scheduler": "tcp://a:1", "rpc": "a:1"}, "--scheduler tcp://a:1 and --rpc a:1: choose one"),
        ({"jobs": 2, "scheduler": "tcp://a:1"}, "choose one"),
        ({"jobs": 0}, "from 1 on"),
        ({"scheduler": "localhost:8786"}, "tcp://host:8786"),
        ({"rpc": "localhost"}, "write host:port"),
        ({"rpc": "a:1,"}, "write host:port"),
        ({"rpc": "a:70000"}, "write host:port"),
        ({"rpc": "a:1,a:1"}, "named twice"),
        ({"rpc": ""}, "write host:port"),
    ],
)
def test_what_cannot_be_meant(words, sentence):
    with pytest.raises(BadUsage, match=sentence):
        parse_execution(**words)
