#!/usr/bin/env bash
# Train on all hosts of a TPU pod slice; run it again to go on after a preemption.
#
#   NAME=my-slice ZONE=us-east5-a CONFIG=configs/quickstart.yaml \
#     RUN_DIR=/mnt/shared/run examples/tpu_pod.sh
#
# RUN_DIR is on a file system that every host mounts. Further words are fields of the
# config. JAX finds the other hosts by the metadata of the slice.
set -euo pipefail
: "${NAME:?the name of the TPU slice}" "${ZONE:?its zone}"
: "${CONFIG:?a YAML file}" "${RUN_DIR:?a directory that all hosts see}"

printf -v words ' %q' "$@"
(($#)) || words=""
gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="\
jaxrl train $CONFIG --run_dir=$RUN_DIR --hosts.coordinator=auto$words"
