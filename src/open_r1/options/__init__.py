"""Options of every command: from a YAML file and a command line to filled dataclasses."""

from open_r1.options.parser import default_hub_model_id, parse_known, parse_options, resolved_options

__all__ = ["default_hub_model_id", "parse_known", "parse_options", "resolved_options"]
