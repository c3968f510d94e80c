"""e-CLIP: contrastive pre-training of both encoders on unlabelled products.

A reconstruction: the abstract and public summaries of arXiv 2207.00208 were at hand, its sizes,
hyper-parameters and tables were not. Whatever they left open is this project's own choice.
"""
