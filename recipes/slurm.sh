#!/bin/bash
# A run over machines under Slurm:  sbatch -N 8 recipes/slurm.sh recipes/stories.ini [-s key=value ...]
#
# One rank a machine, its threads on all cores; the run's folder (`out`) and the data lie where every machine sees them.
# The same command goes on from the newest whole checkpoint, with as many machines as it is given.  Two minutes before its time is
# up the ranks are told: they write a checkpoint, and the job queues itself again.
#SBATCH --job-name=hadal
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=hadal-%j.log
set -u
HADAL=${HADAL:-hadal} # with hadal-mpi.so beside it, or installed
[ $# -gt 0 ] || { echo "usage: sbatch -N MACHINES recipes/slurm.sh RECIPE [-s key=value ...]" >&2; exit 2; }

# --kill-on-bad-exit: a rank that dies ends the run.  --mpi=pmix: what Open MPI speaks; MPICH wants pmi2.
srun --kill-on-bad-exit=1 --mpi="${HADAL_SLURM_MPI:-pmix}" --cpu-bind=cores \
    "$HADAL" pretrain "$@" -s run.threads="$SLURM_CPUS_PER_TASK"
status=$?
# Stopped and saved, not failed: the newest lines say so.
if [ $status != 0 ] && tail -n 20 "hadal-$SLURM_JOB_ID.log" 2>/dev/null | grep -q '^hadal: train: stopped at step'; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
