/* What a training run costs: memory, FLOPs, hours, kWh, dollars, before it is made. */
#ifndef HD_EVAL_COST_H
#define HD_EVAL_COST_H

#include "model/config.h"

typedef struct {
    char name[64];
    int devices;
    double peak_flops;     // of one device in the precision used
    double utilization;    // share of it that training reaches
    double watts, usd_per_hour, usd_per_kwh; // of one device
    double mem_bytes;
} hd_machine;

typedef struct {
    int64_t n_weights, n_active;  // parameters; those that multiply a token
    double flops_per_token, flops;
    double device_hours, hours, kwh, usd;
    double weights_bytes, optimizer_bytes, activations_bytes;
} hd_cost;

hd_status hd_machine_read(hd_machine *m, const char *path, hd_err *err);
hd_status hd_cost_plan(hd_cost *out, const hd_config *c, double tokens, int64_t seq, const hd_machine *m, hd_err *err);

#endif
