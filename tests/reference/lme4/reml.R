# REML estimates of lme4: reference values for the mixed model by restricted
# maximum likelihood.
#
# Run from anywhere, with R packages lme4, nlme and jsonlite:
#
#     Rscript tests/reference/lme4/reml.R
#
# It writes reml.json and Dyestuff2.csv beside itself. Data and sources are
# those of criteria.R; Dyestuff2 is the simulated set of Box & Tiao (1973),
# Bayesian Inference in Statistical Analysis, table 5.1.4, whose variance
# between batches is estimated as zero. The optimizer goes on until theta moves
# by less than 1e-9: its defaults are good to five digits.
#
# Intervals of standard deviations and correlations are those of nlme, which
# lme4 has not: normal on the log scale and on Fisher's, by numerical curvature.
# Days are centered there, so that the intercepts' deviation is that at their mean.
#
# sleepstudy_singular has six subjects whose correlation is at its end;
# Pastes_fixed has batches as dummies.

suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})

here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))))
write.csv(Dyestuff2[c("Batch", "Yield")], file.path(here, "Dyestuff2.csv"), row.names = FALSE, quote = FALSE)
read <- function(name) read.csv(file.path(here, paste0(name, ".csv")), stringsAsFactors = TRUE)

few <- subset(read("sleepstudy"), Subject %in% paste0("S", c(309, 332, 333, 337, 369, 372)))
students <- with(InstEval, data.frame(s, d, dept, lectage_numeric = as.integer(as.character(lectage)), y))

models <- list(
  Dyestuff = list(Yield ~ 1 + (1 | Batch), read("Dyestuff")),
  Dyestuff2 = list(Yield ~ 1 + (1 | Batch), read("Dyestuff2")),
  Penicillin = list(diameter ~ 1 + (1 | plate) + (1 | sample), read("Penicillin")),
  Pastes = list(strength ~ 1 + (1 | batch) + (1 | batch:cask), read("Pastes")),
  Pastes_fixed = list(strength ~ 1 + batch + (1 | batch:cask), read("Pastes")),
  sleepstudy = list(Reaction ~ Days + (1 + Days | Subject), read("sleepstudy")),
  sleepstudy_singular = list(Reaction ~ Days + (1 + Days | Subject), few),
  cake = list(angle ~ temp + (1 | recipe) + (1 | recipe:replicate), read("cake")),
  InstEval = list(y ~ lectage_numeric + (1 | s) + (1 | d) + (1 | dept), students)
)

control <- lmerControl(
  optimizer = "bobyqa", calc.derivs = FALSE,
  optCtrl = list(rhobeg = 0.2, rhoend = 1e-9, maxfun = 1e5)
)

# jsonlite stops at 15 digits; this writes a vector with 17.
numbers <- function(x) {
  structure(paste0("[", paste(sprintf("%.17g", x), collapse = ", "), "]"), class = "json")
}

reference <- function(name) {
  fit <- suppressMessages(lmer(models[[name]][[1]], models[[name]][[2]], REML = TRUE, control = control))
  covariances <- VarCorr(fit)
  cat(sprintf("%-20s REML criterion %.6f%s\n", name, REMLcrit(fit), if (isSingular(fit)) ", singular" else ""))
  list(
    formula = paste(deparse(models[[name]][[1]]), collapse = " "),
    rows = nobs(fit),
    criterion = numbers(REMLcrit(fit)),
    sigma = numbers(sigma(fit)),
    fixed = list(names = I(names(fixef(fit))), estimate = numbers(fixef(fit)), std_error = numbers(sqrt(diag(as.matrix(vcov(fit)))))),
    random = lapply(names(covariances), function(g) {
      found <- covariances[[g]]
      list(group = g, columns = I(rownames(found)), covariance = numbers(as.matrix(found)))
    })
  )
}

curvature <- function() {
  centered <- transform(read("sleepstudy"), Days = Days - mean(Days))
  fit <- nlme::lme(Reaction ~ Days, random = ~ 1 + Days | Subject, centered, method = "REML")
  found <- nlme::intervals(fit, which = "var-cov")
  rows <- rbind(as.matrix(found$reStruct$Subject), found$sigma)
  list(names = I(c("sd", "sd Days", "cor", "sigma")), lower = numbers(rows[, "lower"]), upper = numbers(rows[, "upper"]))
}

out <- list(
  r = paste(R.version$major, R.version$minor, sep = "."),
  lme4 = as.character(packageVersion("lme4")),
  nlme = as.character(packageVersion("nlme")),
  intervals = list(sleepstudy = curvature()),
  models = sapply(names(models), reference, simplify = FALSE)
)
text <- toJSON(out, auto_unbox = TRUE, digits = NA, json_verbatim = TRUE, pretty = 2)
writeLines(text, file.path(here, "reml.json"))
