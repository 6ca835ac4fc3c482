"""Rules of what a run says that validation ended."""

from pathlib import Path

from flows.retrain import blocked_message


def test_reasons_that_are_sentences_end_in_one_full_stop():
    said = blocked_message(
        ["stop rule 'id': 2 twice. An id is one loan.", "too many rows are set aside"], Path("v.html")
    )
    assert said == "stop rule 'id': 2 twice. An id is one loan; too many rows are set aside. See v.html"
