from pipelines.evaluate import Evaluation
from pipelines.train.job import value_limits
from ulsdram_core.labels import LabelSet
from ulsdram_core.metrics import JudgedValue
from ulsdram_core.schema import Extraction, GoldSpan, Status


def test_an_attribute_that_validation_never_saw_is_not_extracted():
    evaluation = Evaluation(judged=[JudgedValue("brand", 0.9, correct=True)] * 50)
    gold = (GoldSpan("brand", "Acme", 0, 4), GoldSpan("colour", "red", 5, 8))
    evaluation.metrics.update(gold, Extraction("1", Status.OK))
    labels = LabelSet(attributes=("brand", "colour", "rare"))
    assert value_limits(evaluation, labels, 0.9) == {"brand": 0.9, "colour": 1.0, "rare": 1.0}
