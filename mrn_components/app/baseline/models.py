"""The models of ``mrn baseline``, and the choice of their settings inside a training part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from mrn_components.data.target import Score, Target

ModelKind = Literal["logistic", "svm", "xgboost"]
Split = tuple[np.ndarray, np.ndarray]  # places of those to fit on, and of those to score

Grid = dict[str, list[Any]]  # {parameter of a pipeline: values to choose among}

_TITLES = {
    "logistic": "logistic regression",
    "svm": "support vector machine",
    "xgboost": "gradient boosting (XGBoost)",
}
_CALIBRATION_FOLDS = 3  # for the probabilities of a support vector machine
_ALPHAS = np.logspace(4, -2, 7).tolist()  # of a ridge regression: the penalty
_GRIDS: dict[str, Grid] = {
    "logistic": {"C": np.logspace(-4, 2, 7).tolist()},  # C is the inverse of the penalty
    "svm": {"kernel": ["linear", "rbf"], "C": [0.01, 0.1, 1.0, 10.0]},
    "xgboost": {"n_estimators": [25, 100], "max_depth": [1, 2, 3]},
}


class ROIColumns(TransformerMixin, BaseEstimator):
    """Keep the columns of some ROIs, or the first principal components of each ROI's columns.

    Args:
        rois: the ROI of each column.
        picked: the ROIs whose columns are kept, in this order.
        components: of each ROI, fewer where there are fewer subjects or columns; 0 keeps columns.
    """

    def __init__(self, rois: Sequence[str], picked: Sequence[str], components: int = 0) -> None:
        self.rois = rois
        self.picked = picked
        self.components = components

    def fit(self, table: np.ndarray, _labels: Any = None) -> "ROIColumns":
        """Fit the components to a table (subjects, columns)."""
        self.parts_ = []
        for roi in self.picked:
            columns = np.flatnonzero(np.array(self.rois) == roi)
            pca = None
            if self.components:
                most = min(self.components, len(columns), len(table))
                pca = PCA(most, svd_solver="full").fit(table[:, columns])
            self.parts_.append((columns, pca))
        return self

    def transform(self, table: np.ndarray) -> np.ndarray:
        """Return what is kept of a table (subjects, columns)."""
        kept = [
            table[:, columns] if pca is None else pca.transform(table[:, columns])
            for columns, pca in self.parts_
        ]
        return np.concatenate(kept, axis=1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, and what of it is chosen inside a training part.

    Args:
        kind: of the model; of a score logistic is a ridge regression.
        target: what is predicted.
        choose_rois: choose between the columns of each ROI alone and those of all.
        components: principal components of each ROI's columns; 0 for the columns themselves.
    """

    kind: ModelKind
    target: Target
    choose_rois: bool = False
    components: int = 0

    @property
    def title(self) -> str:
        """Name the model."""
        is_ridge = isinstance(self.target, Score) and self.kind == "logistic"
        return "ridge regression" if is_ridge else _TITLES[self.kind]

    @property
    def least_of_a_class(self) -> int:
        """How many subjects of each class it is fitted to at least."""
        return _CALIBRATION_FOLDS if self.kind == "svm" else 1

    def pipeline(self, rois: Sequence[str], seed: int = 1) -> Pipeline:
        """Make the model for columns of some ROIs: it imputes medians, standardises, then fits."""
        everything = tuple(dict.fromkeys(rois))
        steps = [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", StandardScaler()),
            ("columns", ROIColumns(tuple(rois), everything, self.components)),
            ("model", self._model(seed)),
        ]
        return Pipeline(steps)

    def grid(self, rois: Sequence[str]) -> Grid:
        """Return the settings to choose among, for columns of some ROIs.

        The first of equals is taken: all ROIs, the strongest penalty, the fewest trees.
        """
        names = tuple(dict.fromkeys(rois))
        grid: Grid = {}
        if self.choose_rois and len(names) > 1:
            grid["columns__picked"] = [names, *((name,) for name in names)]
        own = _GRIDS[self.kind]
        if isinstance(self.target, Score):
            own = {"alpha": _ALPHAS} if self.kind == "logistic" else own
            prefix = "model__regressor__"
        else:
            prefix = "model__estimator__" if self.kind == "svm" else "model__"
        return grid | {f"{prefix}{key}": values for key, values in own.items()}

    def _model(self, seed: int) -> Any:
        if isinstance(self.target, Score):
            own = Ridge() if self.kind == "logistic" else SVR()
            own = _xgboost("XGBRegressor", seed) if self.kind == "xgboost" else own
            return TransformedTargetRegressor(own, transformer=StandardScaler())
        if self.kind == "logistic":
            return LogisticRegression(max_iter=10_000)
        if self.kind == "svm":
            return CalibratedClassifierCV(SVC(), ensemble=False, cv=_CALIBRATION_FOLDS)
        return _xgboost("XGBClassifier", seed)


def fit(
    pipeline: Pipeline,
    grid: Grid,
    table: np.ndarray,
    labels: np.ndarray,
    splits: Sequence[Split],
) -> tuple[Pipeline, dict[str, Any]]:
    """Fit a model to a training part, by the settings whose held-out loss is least within it.

    The loss is the cross entropy; of a score the squared error. Without splits, of too few
    subjects, it is the middle one of penalties, and the first of other settings.

    Returns:
        The model, and what was chosen.
    """
    if not splits:
        numbers = [key for key in grid if isinstance(grid[key][0], float)]
        chosen = {key: values[len(values) // 2 * (key in numbers)] for key, values in grid.items()}
        return pipeline.set_params(**chosen).fit(table, labels), chosen
    loss = "neg_mean_squared_error" if is_regressor(pipeline) else "neg_log_loss"
    search = GridSearchCV(pipeline, grid, scoring=loss, cv=splits, error_score="raise")
    search.fit(table, labels)
    return search.best_estimator_, {**search.best_params_, "loss": -float(search.best_score_)}


def predict(model: Pipeline, table: np.ndarray, target: Target) -> np.ndarray:
    """Return what ``target.metrics`` takes: P(positive) or scores (N,), or probabilities (N, K)."""
    if isinstance(target, Score):
        return np.clip(model.predict(table), *target.span)
    prob = model.predict_proba(table)
    return prob[:, target.number] if target.is_binary else prob


def coefficients(model: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Return the intercepts (K,) and coefficients (K, columns) of a linear model.

    They are for standardised columns, whatever components lie between. Two classes have one row.
    """
    linear = model[2:]
    ask = linear.predict if is_regressor(model) else linear.decision_function
    count = model["scale"].n_features_in_
    base = ask(np.zeros((1, count))).reshape(1, -1)
    rows = ask(np.eye(count)).reshape(count, -1) - base
    return base[0], rows.T


def _xgboost(name: str, seed: int) -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise RuntimeError(
            "--model xgboost needs XGBoost: pip install 'mrn-components[xgboost]'; or take "
            "--model logistic."
        ) from error
    own = {"learning_rate": 0.1, "subsample": 0.8, "colsample_bytree": 0.5, "min_child_weight": 2}
    return getattr(xgboost, name)(**own, n_jobs=1, random_state=seed)
