# ML and REML criteria of lme4 at fixed theta: reference values for the
# collapsed marginal likelihood.
#
# Run from anywhere, with R packages lme4 and jsonlite:
#
#     Rscript tests/reference/lme4/criteria.R [folder]
#
# It writes criteria.json and the small data sets (<name>.csv) beside itself
# and, given a folder, InstEval.csv (73,421 rows) into that folder.
#
# The criterion is -2 log likelihood with sigma and, for ML, beta profiled out
# (for REML, -2 log restricted likelihood), all constants kept:
#     ML    log|L|^2 + n (1 + log(2 pi pwrss / n))
#     REML  log|L|^2 + log|RX|^2 + (n - p) (1 + log(2 pi pwrss / (n - p)))
# Theta is the lower Cholesky factor of each term's covariance divided by
# sigma^2, column-major, the terms in lme4's order (most levels first).
#
# All data sets ship with lme4. Sources: Dyestuff, Penicillin and Pastes,
# Davies & Goldsmith (eds, 1972), Statistical Methods in Research and
# Production, 4th ed., sections 6.4, 6.6 and 6.5; sleepstudy, Belenky et al.
# (2003), J. Sleep Research 12, 1-12; cake, Cook (1938), reported in Cochran &
# Cox (1957), Experimental Designs, 2nd ed., p. 300; InstEval, anonymized
# lecture evaluations first published with lme4.

suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})

here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))))
folder <- commandArgs(trailingOnly = TRUE)

# Data: only the columns used; number-like labels get a letter in front, so
# that a CSV reader keeps them as text.

label <- function(prefix, f) {
  f <- factor(f, ordered = FALSE)
  levels(f) <- paste0(prefix, levels(f))
  f
}

data <- list(
  Dyestuff = Dyestuff[c("Batch", "Yield")],
  Penicillin = Penicillin[c("plate", "sample", "diameter")],
  Pastes = Pastes[c("batch", "cask", "strength")],
  sleepstudy = with(sleepstudy, data.frame(Subject = label("S", Subject), Days, Reaction)),
  cake = with(cake, data.frame(recipe = label("", recipe), replicate = label("r", replicate), temp, angle)),
  InstEval = with(InstEval, data.frame(
    s = label("s", s), d = label("d", d), dept = label("p", dept),
    lectage_numeric = as.integer(as.character(lectage)), y
  ))
)

# Models: the data set, the formula, and two thetas besides lme4's optimum
# (in lme4's order of the terms).

models <- list(
  Dyestuff = list("Dyestuff", Yield ~ 1 + (1 | Batch), c(0.4), c(1.5)),
  Penicillin = list("Penicillin", diameter ~ 1 + (1 | plate) + (1 | sample), c(1, 1), c(2.25, 5)),
  Pastes = list("Pastes", strength ~ 1 + (1 | batch) + (1 | batch:cask), c(2, 2.5), c(5, 0.75)),
  sleepstudy = list(
    "sleepstudy", Reaction ~ Days + (1 + Days | Subject),
    c(1, 0, 0.25), c(0.6, -0.1, 0.4)
  ),
  sleepstudy_intercept = list("sleepstudy", Reaction ~ Days + (1 | Subject), c(0.5), c(2)),
  cake = list("cake", angle ~ temp + (1 | recipe) + (1 | recipe:replicate), c(1, 0.25), c(2, 0.8)),
  InstEval = list("InstEval", y ~ 1 + (1 | s) + (1 | d), c(0.5, 0.25), c(0.2, 0.6)),
  InstEval_lectage = list(
    "InstEval", y ~ lectage_numeric + (1 | s) + (1 | d) + (1 | dept),
    c(0.5, 0.25, 0.3), c(0.2, 0.6, 0.1)
  )
)

# jsonlite stops at 15 digits; these write a number and a vector with 17.
as_number <- function(x) structure(sprintf("%.17g", x), class = "json")
as_array <- function(x) {
  structure(paste0("[", paste(sprintf("%.17g", x), collapse = ", "), "]"), class = "json")
}

evaluate <- function(devfun, theta, reml) {
  criterion <- devfun(theta)
  env <- environment(devfun)
  n <- length(env$resp$y)
  p <- ncol(env$pp$X)
  pwrss <- env$resp$wrss() + env$pp$sqrL(1)
  df <- if (reml) n - p else n
  logdet <- env$pp$ldL2() + if (reml) env$pp$ldRX2() else 0
  stopifnot(all.equal(criterion, logdet + df * (1 + log(2 * pi * pwrss / df)), tolerance = 1e-12))
  list(criterion = as_number(criterion), sigma = as_number(sqrt(pwrss / df)), beta = as_array(env$pp$beta(1)))
}

reference <- function(name) {
  model <- models[[name]]
  formula <- model[[2]]
  frame <- data[[model[[1]]]]
  fit <- lmer(formula, frame, REML = TRUE)
  ml <- lmer(formula, frame, REML = FALSE, devFunOnly = TRUE)
  reml <- lmer(formula, frame, REML = TRUE, devFunOnly = TRUE)

  optimum <- unname(getME(fit, "theta"))
  columns <- getME(fit, "cnms")
  levels <- sapply(getME(fit, "flist"), nlevels)
  terms <- lapply(names(columns), function(g) {
    list(group = g, levels = unname(levels[g]), columns = I(columns[[g]]))
  })
  points <- lapply(list(round(optimum, 3), model[[3]], model[[4]]), function(theta) {
    stopifnot(length(theta) == length(optimum))
    list(theta = I(theta), ml = evaluate(ml, theta, FALSE), reml = evaluate(reml, theta, TRUE))
  })
  cat(sprintf("%-21s REML optimum %.4f at theta %s\n",
    name, REMLcrit(fit), paste(format(optimum, digits = 6), collapse = " ")))
  list(
    data = model[[1]],
    formula = paste(deparse(formula), collapse = " "),
    rows = nrow(frame),
    terms = terms,
    theta_names = I(names(getME(fit, "theta"))),
    beta_names = I(names(fixef(fit))),
    reml_optimum = list(theta = as_array(optimum), criterion = as_number(REMLcrit(fit))),
    points = points
  )
}

for (name in names(data)) {
  if (name == "InstEval" && !length(folder)) next
  to <- if (name == "InstEval") folder[1] else here
  write.csv(data[[name]], file.path(to, paste0(name, ".csv")), row.names = FALSE, quote = FALSE)
}

out <- list(
  r = paste(R.version$major, R.version$minor, sep = "."),
  lme4 = as.character(packageVersion("lme4")),
  models = sapply(names(models), reference, simplify = FALSE)
)
text <- toJSON(out, auto_unbox = TRUE, digits = NA, json_verbatim = TRUE, pretty = 2)
writeLines(text, file.path(here, "criteria.json"))
