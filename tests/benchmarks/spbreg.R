# Rscript spbreg.R FOLDER OUT CHAINS DRAWS BURN SEED: spBreg_lag for spatial_rivals.py, which
# says what is run and why. Writes OUT/draws.csv, a row a draw, and OUT/spent.csv.

wall <- function() proc.time()[["elapsed"]]
cpu <- function() sum(proc.time()[c("user.self", "sys.self")])
launched <- wall() # R has no clock of its own start-up
suppressPackageStartupMessages(library(spatialreg))
given <- commandArgs(trailingOnly = TRUE)
folder <- given[1]
out <- given[2]
size <- as.integer(given[3:6])
names(size) <- c("chains", "draws", "burn", "seed")

start <- c(wall(), cpu())
table <- read.csv(file.path(folder, "table.csv"))
edges <- read.csv(file.path(folder, "edges.csv"))
near <- unname(split(edges$to + 1L, edges$from))
stopifnot(length(near) == nrow(table))
near <- structure(near, class = "nb", region.id = as.character(seq_along(near)))
listw <- spdep::nb2listw(near, glist = unname(split(edges$weight, edges$from)), style = "W")
control <- list(
  ndraw = size[["draws"]] + size[["burn"]], nomit = 0L,
  prior = list(a1 = 2, a2 = 1e9)
)
spent <- c(import = start[1] - launched, setup = wall() - start[1], sampling = 0, impacts = 0)
sampling_cpu <- 0
chains <- list()
for (chain in seq_len(size[["chains"]])) {
  set.seed(1000L * size[["seed"]] + chain)
  begun <- wall()
  fit <- spBreg_lag(y ~ ., data = table, listw = listw, control = control)
  elapsed <- wall() - begun
  timings <- attr(fit, "timings")["sampling", ]
  spent[["sampling"]] <- spent[["sampling"]] + timings[["elapsed"]]
  spent[["setup"]] <- spent[["setup"]] + elapsed - timings[["elapsed"]]
  sampling_cpu <- sampling_cpu + timings[["user.self"]] + timings[["sys.self"]]
  begun <- wall()
  if (chain == 1L) traces <- trW(as(listw, "CsparseMatrix"), type = "mult")
  found <- impacts(fit, tr = traces)$sres
  spent[["impacts"]] <- spent[["impacts"]] + wall() - begun
  chains[[chain]] <- cbind(unclass(fit), found$direct, found$indirect, found$total)
}
spent <- c(spent, total = wall() - start[1], cpu_sampling = sampling_cpu, cpu_total = cpu() - start[2])

kept <- -seq_len(size[["burn"]])
draws <- do.call(rbind, lapply(chains, function(chain) chain[kept, , drop = FALSE]))
stopifnot(all(is.finite(draws)))
terms <- names(table)[-1]
colnames(draws) <- c("beta.0", paste0("beta.", terms), "rho", "sigma2",
                     paste0("direct.", terms), paste0("indirect.", terms), paste0("total.", terms))
write.csv(draws, file.path(out, "draws.csv"), row.names = FALSE)
version <- paste0("spatialreg ", packageVersion("spatialreg"), ", R ", getRversion())
write.csv(data.frame(t(spent), version), file.path(out, "spent.csv"), row.names = FALSE)
