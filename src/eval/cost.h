/* What a training run costs, told before it is made: weights, FLOPs, memory, hours, kWh, dollars.
 *
 * Work is told as model FLOPs: 6 for each weight that multiplies a token (2 forward, 4 backward;
 * arXiv:2001.08361), and attention by the length of a sequence, of which a causal token sees half on average.
 * What is computed twice to save memory does not count.
 *
 * Time is the sum over five kinds of work, each at the rate that was measured of it:  t = sum work_k / rate_k  a token.  They are
 * counted from the configuration as hadal computes it, so rates measured on a few shapes hold for others.  Of
 * a machine on which hadal was not measured the file tells a share of the peak, its utilization, instead.
 * What an update takes is told apart, because small batches pay it more often. */
#ifndef HD_EVAL_COST_H
#define HD_EVAL_COST_H

#include "base/buf.h"
#include "model/config.h"

enum { HD_COST_PHASES = 8 };

/* Work of a pass, forward and backward. */
typedef enum {
    HD_WORK_MATRICES,  // FLOPs of products with weights
    HD_WORK_ATTENTION, // FLOPs of scores and means; latent attention's over the latent, where it takes place
    HD_WORK_PAIRS,     // scores, each of a head: what one costs whatever the head's size
    HD_WORK_NUMBERS,   // that products with weights read and write: norms, activations and copies lie between them
    HD_WORK_WEIGHTS,   // multiplied, all experts': once in a micro-batch each is fetched and its gradient added to
    HD_WORK_KINDS
} hd_work_kind;

/* What was published of a run of one model on this machine; tokens 0: nothing. */
typedef struct {
    char source[160], arch[64];
    int n_layers, n_experts;
    int64_t d_model;
    double tokens, hours_per_trillion, context_hours, post_hours, usd_per_hour; // hours of one device
    int n_phases;                                                  // of context extension
    double phase_seq[HD_COST_PHASES], phase_tokens[HD_COST_PHASES];
} hd_quote;

typedef struct {
    char name[64], precision[16];
    int devices;
    double peak_flops;      // of one device in that precision
    double bf16_flops;      // the same in bf16, 0: the file does not say
    double utilization;     // share of it that training reaches, where no rates say better
    double rate[HD_WORK_KINDS]; // of one device, a second; 0: takes no time.  Of matrices 0: nothing was measured
    double adamw_s, muon_s; // weights updated a second by all devices, 0: for nothing
    double muon_flops;      // of Muon's products a second, which come on top of its weights
    double watts, usd_per_hour, usd_per_kwh; // of one device
    double mem_bytes;
    hd_quote quote;
} hd_machine;

typedef struct {
    double tokens;
    int64_t seq;         // tokens of a sequence
    double batch_tokens; // of an update; 0: 4 M, where an update's time is nothing
    int64_t micro_tokens; // of a pass; 0: as many as a run takes that is not told
    bool muon;
} hd_cost_ask;

typedef struct {
    /* Weights.  The embedding counts among those that a token uses (one row of it is read) and not among
     * those multiplied. */
    int64_t n_weights, n_active, n_multiplied;             // of the main model
    int64_t n_mtp, n_mtp_active;                           // multi-token prediction's own; n_mtp_shared: with what it shares
    int64_t n_shared;                                      // the embedding and the head, which it shares
    double flops_matrices, flops_attention, flops_mtp;     // a token
    double flops_per_token, flops;
    double work[HD_WORK_KINDS];                            // a token
    double muon_work;                                      // FLOPs of an update by Muon
    double utilization;
    double device_hours, hours, kwh, usd;                  // hours: by the clock
    double update_hours;                                   // of device_hours
    double weights_bytes, optimizer_bytes, activations_bytes; // f32 masters, gradients and panels; moments; one sequence
} hd_cost;

/* Beside what was published. */
typedef struct {
    double pretrain_hours;      // hours_per_trillion x tokens
    double implied_utilization; // what the plan's FLOPs make of it
    double context_estimate;    // the plan's own, at that utilization
    double context_estimate_full; // the same with attention counted over whole sequences, as utilization is often told
    double hours, usd;          // the sum of the three, as quoted
} hd_cost_quoted;

/* A machine's file: INI, see recipes/machines.  An unknown key or a number out of range: HD_FORMAT
 * with file and line. */
hd_status hd_machine_read(hd_machine *m, const char *path, hd_err *err);
hd_status hd_machine_print(hd_buf *out, const hd_machine *m, hd_err *err); // the same as text
/* 14.8T, 3e9, 250M, 64K: true when it is a finite number above 0. */
bool hd_cost_number(double *v, const char *text);

hd_status hd_cost_plan(hd_cost *out, const hd_config *c, const hd_cost_ask *a, const hd_machine *m, hd_err *err);
/* False when the machine's file quotes nothing of such a model. */
bool hd_cost_quote(hd_cost_quoted *out, const hd_cost *plan, const hd_cost_ask *a, const hd_config *c, const hd_machine *m);

/* The seconds of each kind of work, 0 where it has no rate; the sum is returned. */
double hd_cost_seconds(double seconds[HD_WORK_KINDS], const double work[HD_WORK_KINDS], const double rate[HD_WORK_KINDS]);

/* Rates by which n models' work a token takes nearest to the seconds a token that were measured: the least
 * squares of relative errors, no rate below 0.  A kind of work that nobody had, or that explains nothing: 0.
 * work: [n], seconds: [n] > 0. */
void hd_cost_fit(double rate[HD_WORK_KINDS], const double (*work)[HD_WORK_KINDS], const double *seconds, int n);

/* Time this machine: its product rate, and training passes and updates of small models for its other rates.
 * Fills name, devices, peak, rates; watts and prices are left alone.  Takes about a minute. */
hd_status hd_machine_measure(hd_machine *m, int n_threads, hd_err *err);

#endif
