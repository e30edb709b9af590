"""What a sandbox gives to every program."""

from __future__ import annotations

from trio_sandbox.config import SandboxConfig
from trio_sandbox.image.oci import ImageConfig
from trio_sandbox.runtime import Runtime

DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/.msb/bin"


def test_path_ends_with_the_programs_of_the_agent_whoever_gave_it() -> None:
    config = SandboxConfig(name="path", image="local/base")
    assert Runtime(config).base_env == {"PATH": DEFAULT}
    image = ImageConfig(env=("PATH=/opt/bin", "LANG=C", "no value"))
    assert Runtime(config, image=image).base_env == {"PATH": "/opt/bin:/.msb/bin", "LANG": "C"}
    config = SandboxConfig(name="path", image="local/base", env={"PATH": "/own", "LANG": "de"})
    assert Runtime(config, image=image).base_env == {"PATH": "/own:/.msb/bin", "LANG": "de"}
