#define REAL float
#include "kernels.h"
