"""What is imported for a pull, and what is not."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import trio_sandbox.image.registry.client as client
assert "jsonschema" not in sys.modules, "the real one, or what stood for it"
import oras.provider, oras.schemas
late = oras.provider.jsonschema
try:
    late.validate({"schemaVersion": "two"}, schema=oras.schemas.manifest)
except Exception as error:
    print(type(error).__name__)
import jsonschema
print(jsonschema.validate is late.validate, isinstance(client.RegistryClient, type))
"""


def test_jsonschema_comes_when_it_is_used_and_not_before() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout == "ValidationError\nTrue True\n", done.stderr
