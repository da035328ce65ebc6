"""A throw-away certificate authority for tests, by the ``openssl`` command."""

from pathlib import Path

from pvc_core.config.schema import Tls
from pvc_core.plugin.process import run


class Authority:
    """An authority with its files in ``directory``; keys are P-256, in PKCS#8, which ZooKeeper reads too."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl("req", "-x509", *_new_key(self._key), "-days", "30", "-subj", f"/CN={name}", "-out", self.certificate)

    def issue(self, name: str, *addresses: str) -> Tls:
        """Return the files of a new certificate for IP ``addresses``."""
        base = self._directory / name
        request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
        extensions.write_text("".join(["subjectAltName=", ",".join(f"IP:{address}" for address in addresses), "\n"]))
        _openssl("req", "-new", *_new_key(base.with_suffix(".key")), "-subj", f"/CN={name}", "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", "30", "-extfile", extensions, "-out", base.with_suffix(".pem")),
        )
        return Tls(
            ca=str(self.certificate), certificate=str(base.with_suffix(".pem")), key=str(base.with_suffix(".key"))
        )


def _new_key(path: Path) -> tuple[object, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path)


def _openssl(*arguments: object) -> None:
    run(["openssl", *map(str, arguments)], deadline_s=30).check()
