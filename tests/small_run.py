"""The options of training runs that end in seconds."""

SMALL = [
    "--recipe=tiny",
    "--set=model.text_encoder.hidden=32",
    "--set=model.image_encoder.width=8",
    "--set=image.size=32",
    "--set=fit.epochs=1",
    "--set=labels.vocab_size=500",
]

# --set values of a pre-training run that ends in seconds.
SMALL_PRETRAINING = [
    "model.text_encoder.hidden=32", "model.text_encoder.layers=1", "model.image_encoder.width=8",
    "image.size=32", "pretrain.epochs=2", "pretrain.stream_pairs=16", "run.vocab_size=400",
    "run.pool_pairs=40", "run.checkpoint_steps=2", "pretrain.growth.start_streams=2",
    "pretrain.growth.max_streams=2",
    "pretrain.validations=2",
]  # fmt: skip
