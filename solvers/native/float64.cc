#define REAL double
#include "kernels.h"
