import pytest

from quantplan.errors import BadUsage
from quantplan.execution import Execution, machines


def test_this_process_is_the_default():
    assert machines() == Execution() == Execution(1, None, ())
    assert not Execution().many and not machines(rpc="a:1").many
    assert machines(2).many and machines(scheduler="tcp://a:8786").many


def test_servers_are_named_with_commas_between():
    assert machines(rpc="10.0.0.1:50052, gpu-box.local:50053").rpc == ("10.0.0.1:50052", "gpu-box.local:50053")


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
        machines(**words)
