/* hadal-mpi.so: ranks of an MPI run (any MPI of version 3).  Opened by comm.c, and only where a process was
 * started as one of several, so the program itself needs no MPI. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "dist/net.h"

/* MPI is one to a process by its nature, and so is this state. */
static struct {
    MPI_Request *req; // [2 (size - 1)], sends and receives, of each slot
    size_t *awaited;  // bytes of each receive, 0 of a send
    MPI_Status *status;
    int n;
} slots[HD_NET_SLOTS];

static int say(char *why, int code)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    if (code == MPI_SUCCESS) return 0;
    MPI_Error_string(code, text, &n);
    snprintf(why, HD_NET_WHY, "%.*s", n, text);
    return 1;
}

static int start(int slot, const hd_net_part *part, int n, char *why)
{
    int e = MPI_SUCCESS, at = 0;
    for (int i = 0; i < n && e == MPI_SUCCESS; i++) { // all receives first: what arrives has a place
        if (part[i].n_recv == 0) continue;
        slots[slot].awaited[at] = part[i].n_recv;
        e = MPI_Irecv(part[i].recv, (int)part[i].n_recv, MPI_BYTE, part[i].rank, 0, MPI_COMM_WORLD, &slots[slot].req[at++]);
    }
    for (int i = 0; i < n && e == MPI_SUCCESS; i++) {
        if (part[i].n_send == 0) continue;
        slots[slot].awaited[at] = 0;
        e = MPI_Isend(part[i].send, (int)part[i].n_send, MPI_BYTE, part[i].rank, 0, MPI_COMM_WORLD, &slots[slot].req[at++]);
    }
    slots[slot].n = at;
    return say(why, e);
}

static int finish(int slot, char *why)
{
    int e = MPI_Waitall(slots[slot].n, slots[slot].req, slots[slot].status), got = 0;
    if (e == MPI_ERR_IN_STATUS)
        for (int i = 0; i < slots[slot].n; i++)
            if (slots[slot].status[i].MPI_ERROR != MPI_SUCCESS) return say(why, slots[slot].status[i].MPI_ERROR);
    if (say(why, e)) return 1;
    for (int i = 0; i < slots[slot].n; i++) {
        if (slots[slot].awaited[i] == 0) continue;
        MPI_Get_count(&slots[slot].status[i], MPI_BYTE, &got);
        if ((size_t)got == slots[slot].awaited[i]) continue;
        snprintf(why, HD_NET_WHY, "rank %d sent %d bytes, %zu were awaited", slots[slot].status[i].MPI_SOURCE, got,
                 slots[slot].awaited[i]);
        return 1;
    }
    return 0;
}

static int barrier(char *why) { return say(why, MPI_Barrier(MPI_COMM_WORLD)); }

static void stop(int status)
{
    MPI_Abort(MPI_COMM_WORLD, status);
    abort();
}

static void close_slots(void)
{
    for (int i = 0; i < HD_NET_SLOTS; i++) {
        free(slots[i].req);
        free(slots[i].awaited);
        free(slots[i].status);
    }
}

static void close_all(void)
{
    MPI_Finalize();
    close_slots();
}

static int open_slots(int size, char *why)
{
    size_t n = 2 * (size_t)size;
    for (int i = 0; i < HD_NET_SLOTS; i++) {
        slots[i].req = malloc(n * sizeof *slots[i].req);
        slots[i].awaited = malloc(n * sizeof *slots[i].awaited);
        slots[i].status = malloc(n * sizeof *slots[i].status);
        if (slots[i].req && slots[i].awaited && slots[i].status) continue;
        close_slots();
        snprintf(why, HD_NET_WHY, "no memory");
        return 1;
    }
    return 0;
}

__attribute__((visibility("default"))) hd_net_open_fn hd_net_open;

int hd_net_open(hd_net *net, char *why)
{
    int level;
    *net = (hd_net){HD_NET_VERSION, 0, 1, start, finish, barrier, stop, close_all};
    if (say(why, MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level))) return 1;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (level < MPI_THREAD_FUNNELED) {
        snprintf(why, HD_NET_WHY, "this MPI was built without support for programs with threads");
        return 1;
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &net->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &net->size);
    return open_slots(net->size, why);
}
