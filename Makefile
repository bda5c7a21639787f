# make demo   compress the embedded digits network with the embedded digits, into build/
# make test   the tests
# make check  lint, format, types, floors
# make test-arm  emulated ARM cores, set up in build/arm (Debian or Ubuntu): outputs against this machine's, instructions
# make test-devices  devices by ssh against a real OpenSSH server, unpacked into build/sshd if the system has none
# make clean  remove what the above made
#
# Each works in a fresh clone: the first one makes .venv. Another interpreter: make PYTHON=python3.12 ...

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-arm test-devices check clean

demo: $(READY)
	mkdir -p build
	$(BIN)/edgepress compress calibration/digits_cnn.onnx --data calibration/digits.npz -o build/digits.edge.onnx

# Two workers, each with tests that follow one another, so that few fixtures are made twice; one torch thread each, since
# more would only wait for each other on two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

# One onnxruntime more, which some cores cannot run. Where no cross compiler can be had, the runner is not tested.
test-arm: $(READY)
	$(BIN)/python tools/arm/setup.py --also 1.21.0
	$(BIN)/python tools/arm/native.py || test $$? -eq 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q tests/test_arm.py tests/test_arm_counts.py tests/test_devices_native_arm.py \
		tests/test_bench_device.py tests/test_bundle_verify.py tests/test_compress_device.py tests/test_devices_emulated.py

test-devices: $(READY)
	$(BIN)/python tools/sshd.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q tests/test_devices.py tests/test_devices_ssh.py \
		tests/test_devices_ssh_commands.py tests/test_bundle_verify.py

check: $(READY)
	$(BIN)/python -m tools.check

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamp is written last, so a broken installation is made again. An old pip may not be replaceable
# (no connection, a mirror without pip); the installation below then shows whether the old one will do.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,images]' -c constraints.txt
	touch $@
