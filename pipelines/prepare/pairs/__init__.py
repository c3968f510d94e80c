"""From a catalogue to the pairs that e-CLIP is pre-trained on."""
