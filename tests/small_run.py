"""The options of a training run that ends in seconds."""

SMALL = [
    "--recipe=tiny",
    "--set=model.text_encoder.hidden=32",
    "--set=model.image_encoder.width=8",
    "--set=image.size=32",
    "--set=fit.epochs=1",
    "--set=labels.vocab_size=500",
]
