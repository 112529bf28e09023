/* The parts of `hadal data`. */
#ifndef HD_CLI_DATA_H
#define HD_CLI_DATA_H

#include "base/err.h"

/* Each takes argv[0], its own name, and the options behind it. */
hd_status hd_data_cmd_pack(int argc, char **argv, hd_err *err); // data_pack.c
hd_status hd_data_cmd_get(int argc, char **argv, hd_err *err);  // data_get.c
hd_status hd_data_cmd_info(int argc, char **argv, hd_err *err); // data_show.c
hd_status hd_data_cmd_show(int argc, char **argv, hd_err *err);

#endif
