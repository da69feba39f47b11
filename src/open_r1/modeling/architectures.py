"""Which architectures packs can be computed with exactly, told from the configuration, before weights are read."""

def check_attention_supported(config):
    return None
