#!/bin/sh
# A real Slurm of one node, this machine, in a folder of its own:
#
#     sudo tests/cluster/slurm_node.sh up /tmp/slurm
#     SLURM_CONF=/tmp/slurm/slurm.conf python -m pytest -m cluster tests/cluster/test_slurm.py
#     sudo tests/cluster/slurm_node.sh down /tmp/slurm
#
# or all three: tests/cluster/slurm_node.sh with /tmp/slurm python -m pytest -m cluster tests/cluster/test_slurm.py
#
# Needs root and the packages slurm-wlm and munge of Debian or Ubuntu, which it installs where they are missing.
# The partition urgent preempts jobs of the partition debug, which are requeued.
set -eu
action=${1:?up, down or with} folder=${2:?a folder}
shift 2

down() {
    for daemon in slurmd slurmctld munged; do
        if [ -s "$folder/$daemon.pid" ]; then
            kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
        fi
    done
}

configure() {
    host=$(hostname -s)
    cat > "$folder/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2
END
}

up() {
    command -v slurmctld > /dev/null && command -v munged > /dev/null \
        || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    head -c 1024 /dev/urandom > "$folder/munge.key"
    chmod 600 "$folder/munge.key"
    configure
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld
    slurmd
    for _ in $(seq 60); do
        if [ "$(sinfo --noheader --partition=debug --format=%t 2>/dev/null)" = idle ]; then
            echo "export SLURM_CONF=$folder/slurm.conf"
            return
        fi
        sleep 1
    done
    tail "$folder"/*.log >&2
    exit 1
}

case $action in
    up) down; up ;;
    down) down ;;
    with) trap down EXIT; down; up; "$@" ;;
    *) echo "up, down or with, not $action" >&2; exit 2 ;;
esac
